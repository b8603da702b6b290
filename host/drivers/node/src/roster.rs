//! The list of members as the transport has it.

use std::collections::BTreeMap;

use quorate_crank::{Contact, Dial};
use quorate_transport::{PeerAddress, Transport};
use quorate_types::NodeId;

/// The peers of the node file, as the list has them.
pub(crate) fn contacts_of(peers: &BTreeMap<NodeId, PeerAddress>) -> BTreeMap<NodeId, Contact> {
    let contact = |peer: &PeerAddress| Contact {
        peer: peer.peer_id.clone(),
        address: peer.address.to_string(),
    };
    peers.iter().map(|(node, peer)| (*node, contact(peer))).collect()
}

/// Hands lists to the transport. Those who belonged to the cluster before it was begun anew may
/// connect too, and are told so by admission; they get nothing else.
pub(crate) fn dial(transport: Transport, formers: BTreeMap<NodeId, PeerAddress>) -> Dial {
    Box::new(move |list| {
        let mut peers = BTreeMap::new();
        for (node, Contact { peer: peer_id, address }) in list {
            match address.parse() {
                Ok(address) => {
                    peers.insert(node, PeerAddress { peer_id, address });
                }
                Err(error) => tracing::warn!(%node, %error, "cannot be dialled"),
            }
        }
        for (node, former) in &formers {
            let is_back = peers.values().any(|peer| peer.peer_id == former.peer_id);
            if !is_back {
                peers.entry(*node).or_insert_with(|| former.clone());
            }
        }
        transport.set_peers(peers);
    })
}
