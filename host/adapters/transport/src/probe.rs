//! A plain TCP connect to a lost peer's address: the fastest honest answer to
//! "is its process still there?". A dead process's port refuses within a round
//! trip; this is what failover hangs on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Waits between the probes of [`settle`], milliseconds: 31 in all.
const SETTLE_WAITS_MS: [u64; 5] = [1, 2, 4, 8, 16];

/// What a peer's address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Somebody listens there, or at least the kernel completes connections for it.
    Answers,
    /// Nobody listens there.
    Refused,
    /// No answer within the bound, or no way to the address.
    Silent,
}

/// Asks once.
pub(crate) async fn probe(address: SocketAddr, bound: Duration) -> Probe {
    match timeout(bound, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => from_stream(&stream),
        Ok(Err(error)) => from_error(&error),
        Err(_elapsed) => Probe::Silent,
    }
}

/// A local port that nobody listens on can be given to our own outgoing socket, which TCP then
/// connects to itself.
fn from_stream(stream: &TcpStream) -> Probe {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Probe::Refused,
        _ => Probe::Answers,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds all mean: no way there")]
fn from_error(error: &io::Error) -> Probe {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Probe::Refused,
        // A listener that dies takes the connections in its backlog with it.
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Probe::Answers,
        _ => Probe::Silent,
    }
}

/// Asks until the answer is plain. A killed process's sockets close one by one, so its listener may
/// still answer for a moment after its connection broke.
pub(crate) async fn settle(address: SocketAddr, bound: Duration) -> Probe {
    for wait in SETTLE_WAITS_MS {
        match probe(address, bound).await {
            Probe::Answers => sleep(Duration::from_millis(wait)).await,
            plain @ (Probe::Refused | Probe::Silent) => return plain,
        }
    }
    probe(address, bound).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const BOUND: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_listener_answers_and_a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, BOUND).await, Probe::Answers);
        assert_eq!(settle(address, BOUND).await, Probe::Answers);
        drop(listener);
        assert_eq!(settle(address, BOUND).await, Probe::Refused);
    }

    #[tokio::test]
    async fn a_listener_that_closes_while_we_ask_is_seen_to_refuse() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = async move {
            let (_stream, _from) = listener.accept().await.unwrap();
        };
        let (probe, ()) = tokio::join!(settle(address, BOUND), closing);
        assert_eq!(probe, Probe::Refused);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_drops_what_we_send_is_silent() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // Linux leaves a connect unanswered while the backlog is full.
        let mut waiting = Vec::new();
        let mut last = Probe::Answers;
        while last == Probe::Answers && waiting.len() < 8 {
            let bound = Duration::from_millis(300);
            last = probe(address, bound).await;
            waiting.push(timeout(bound, TcpStream::connect(address)).await);
        }
        assert_eq!(last, Probe::Silent);
    }

    #[tokio::test]
    async fn a_socket_connected_to_itself_is_nobody() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert_eq!(from_stream(&stream), Probe::Refused);
    }
}
