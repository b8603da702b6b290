//! Who may speak to us: a list that is checked at the start, and that may be
//! replaced while the transport runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};
use quorate_types::NodeId;

use crate::options::{PeerAddress, StartError, TransportOptions};

/// The key pair of this seed.
#[expect(clippy::expect_used, reason = "every 32 bytes are an ed25519 seed")]
pub(crate) fn keypair_of(seed: &[u8; 32]) -> Keypair {
    let mut seed = *seed;
    Keypair::ed25519_from_bytes(&mut seed).expect("32 bytes are a seed")
}

/// The peer id of the node whose ed25519 key has this seed.
pub fn peer_id_of(seed: &[u8; 32]) -> String {
    keypair_of(seed).public().to_peer_id().to_string()
}

/// Many short texts are peer ids of some kind; ours hold an ed25519 key, so that one which lost its
/// tail is seen here and not as a peer that never comes.
fn ed25519_peer(text: &str) -> Result<PeerId, String> {
    let peer: PeerId = text.parse().map_err(|error| format!("{error}"))?;
    let key = PublicKey::try_decode_protobuf(peer.as_ref().digest())
        .map_err(|error| format!("it holds no key: {error}"))?;
    key.try_into_ed25519().map_err(|error| format!("its key is of another kind: {error}"))?;
    Ok(peer)
}

/// Another node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
}

/// All other nodes, findable by either name. Peer ids and nodes are in bijection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    by_node: BTreeMap<NodeId, Member>,
    by_peer: BTreeMap<PeerId, NodeId>,
}

impl Table {
    /// The table that a list makes; where an entry is of no use, why.
    fn read(
        own: (NodeId, PeerId),
        listed: &BTreeMap<NodeId, PeerAddress>,
        mut bad: impl FnMut(StartError) -> Result<(), StartError>,
    ) -> Result<Self, StartError> {
        let (own, own_peer) = own;
        let mut table = Self::default();
        table.by_peer.insert(own_peer, own);
        for (&node, PeerAddress { peer_id, address }) in listed {
            let peer = match ed25519_peer(peer_id) {
                Ok(peer) => peer,
                Err(reason) => {
                    bad(StartError::BadPeerId { node, text: peer_id.clone(), reason })?;
                    continue;
                }
            };
            if node == own {
                if peer != own_peer {
                    let (listed, own) = (peer.to_string(), own_peer.to_string());
                    bad(StartError::NotOurKey { node, listed, own })?;
                }
                continue;
            }
            if let Some(&first) = table.by_peer.get(&peer) {
                let peer_id = peer.to_string();
                bad(StartError::SharedPeerId { first, second: node, peer_id })?;
                continue;
            }
            table.by_peer.insert(peer, node);
            table.by_node.insert(node, Member { node, peer, address: *address });
        }
        table.by_peer.remove(&own_peer);
        Ok(table)
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Member> {
        self.by_node.get(&node).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }
}

/// The list as it is now. The transport's thread changes it, and everything on that thread asks it.
#[derive(Debug)]
pub(crate) struct Members {
    own: NodeId,
    own_peer: PeerId,
    table: Mutex<Table>,
}

impl Members {
    pub(crate) fn from_options(options: &TransportOptions) -> Result<Self, StartError> {
        let own_peer = keypair_of(&options.key).public().to_peer_id();
        let table = Table::read((options.node, own_peer), &options.peers, Err)?;
        Ok(Self { own: options.node, own_peer, table: Mutex::new(table) })
    }

    /// The table of another list. What is of no use in it is left out: the list is agreed on by
    /// then, and the rest of it must work.
    pub(crate) fn read(&self, listed: &BTreeMap<NodeId, PeerAddress>) -> Table {
        let leave_out = |error: StartError| {
            tracing::warn!(%error, "a member cannot be connected to");
            Ok(())
        };
        Table::read((self.own, self.own_peer), listed, leave_out).unwrap_or_default()
    }

    /// Puts another table in place.
    pub(crate) fn replace(&self, table: Table) {
        *self.table() = table;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every critical section here is complete in itself.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node, and not the other, says which of two connections they use.
    pub(crate) fn decides(&self, node: NodeId) -> bool {
        self.own < node
    }

    /// The list at this moment.
    pub(crate) fn now(&self) -> Table {
        self.table().clone()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Member> {
        self.table().get(node)
    }

    pub(crate) fn node_of(&self, peer: &PeerId) -> Option<NodeId> {
        self.table().by_peer.get(peer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(peers: &[(u64, String)]) -> TransportOptions {
        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        let peers = peers
            .iter()
            .map(|(node, id)| (NodeId(*node), PeerAddress { peer_id: id.clone(), address }))
            .collect();
        TransportOptions::new([1; 32], NodeId(1), address, peers)
    }

    #[test]
    fn the_list_may_name_this_node_and_does_not_make_it_a_peer_of_itself() {
        let listed = [(1, peer_id_of(&[1; 32])), (2, peer_id_of(&[2; 32]))];
        let members = Members::from_options(&options(&listed)).unwrap();
        let nodes: Vec<NodeId> = members.now().iter().map(|member| member.node).collect();
        assert_eq!(nodes, [NodeId(2)]);
        assert_eq!(members.node_of(&keypair_of(&[1; 32]).public().to_peer_id()), None);
        assert_eq!(members.node_of(&keypair_of(&[2; 32]).public().to_peer_id()), Some(NodeId(2)));
    }

    #[test]
    fn a_later_list_leaves_out_what_is_of_no_use() {
        let members = Members::from_options(&options(&[(2, peer_id_of(&[2; 32]))])).unwrap();
        let later = [
            (3, peer_id_of(&[3; 32])),
            (4, "12D3KooBogus".to_owned()),
            (5, peer_id_of(&[3; 32])),
            (6, peer_id_of(&[1; 32])),
        ];
        members.replace(members.read(&options(&later).peers));
        let nodes: Vec<NodeId> = members.now().iter().map(|member| member.node).collect();
        assert_eq!(nodes, [NodeId(3)]);
        assert_eq!(members.node_of(&keypair_of(&[2; 32]).public().to_peer_id()), None);
    }

    #[test]
    fn each_bad_list_is_refused_by_name() {
        let refusal = |listed: &[(u64, String)]| {
            Members::from_options(&options(listed)).unwrap_err().to_string()
        };
        let text = refusal(&[(2, "12D3KooBogus".to_owned())]);
        assert!(text.contains("n2") && text.contains("12D3KooBogus"), "{text}");
        let text = refusal(&[(1, peer_id_of(&[9; 32]))]);
        assert!(text.contains(&peer_id_of(&[1; 32])) && text.contains("own key"), "{text}");
        let text = refusal(&[(2, peer_id_of(&[2; 32])), (3, peer_id_of(&[2; 32]))]);
        assert!(text.contains("n2 and n3"), "{text}");
        let text = refusal(&[(2, peer_id_of(&[1; 32]))]);
        assert!(text.contains("n1 and n2"), "{text}");
    }
}
