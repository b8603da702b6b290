//! Who may speak to us: the cluster file's list, checked once at the start.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};
use quorate_types::NodeId;

use crate::options::{StartError, TransportOptions};

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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
}

/// All other nodes, findable by either name. Peer ids and nodes are in bijection.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    pub(crate) own: NodeId,
    by_node: BTreeMap<NodeId, Member>,
    by_peer: BTreeMap<PeerId, NodeId>,
}

impl Members {
    pub(crate) fn from_options(options: &TransportOptions) -> Result<Self, StartError> {
        let own = options.node;
        let own_peer = keypair_of(&options.key).public().to_peer_id();
        let mut by_node = BTreeMap::new();
        let mut by_peer = BTreeMap::from([(own_peer, own)]);
        for (&node, listed) in &options.peers {
            let peer = ed25519_peer(&listed.peer_id).map_err(|reason| StartError::BadPeerId {
                node,
                text: listed.peer_id.clone(),
                reason,
            })?;
            if node == own {
                if peer == own_peer {
                    continue;
                }
                let (listed, own) = (peer.to_string(), own_peer.to_string());
                return Err(StartError::NotOurKey { node, listed, own });
            }
            if let Some(first) = by_peer.insert(peer, node) {
                let peer_id = peer.to_string();
                return Err(StartError::SharedPeerId { first, second: node, peer_id });
            }
            by_node.insert(node, Member { node, peer, address: listed.address });
        }
        by_peer.remove(&own_peer);
        Ok(Self { own, by_node, by_peer })
    }

    /// Whether this node, and not the other, says which of two connections they use.
    pub(crate) fn decides(&self, node: NodeId) -> bool {
        self.own < node
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Member> {
        self.by_node.get(&node)
    }

    pub(crate) fn node_of(&self, peer: &PeerId) -> Option<NodeId> {
        self.by_peer.get(peer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PeerAddress;

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
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        assert_eq!(nodes, [NodeId(2)]);
        assert_eq!(members.node_of(&keypair_of(&[1; 32]).public().to_peer_id()), None);
        assert_eq!(members.node_of(&keypair_of(&[2; 32]).public().to_peer_id()), Some(NodeId(2)));
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
