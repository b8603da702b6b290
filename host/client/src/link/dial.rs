//! A connection to a node, upgraded to the native stream.

use std::time::Duration;

use bytes::BytesMut;
use quorate_types::link::{PATH, PROTOCOL};
use quorate_types::problem::Problem;
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::error::ClientError;

/// A head, and the body of a refusal, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// On one network a connection stands in milliseconds.
const DIAL_WITHIN: Duration = Duration::from_secs(2);
/// Between two rounds over all nodes.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// A connection, and what came after its head.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) early: BytesMut,
}

enum Dialled {
    Stands(Socket),
    /// Another may take it.
    Later(ClientError),
    Never(ClientError),
}

impl Client {
    /// Connects to the node that answered last, or to whichever can be reached until then.
    pub(super) async fn dial_any(&self, within: Duration) -> Result<(Socket, String), ClientError> {
        let begun = tokio::time::Instant::now();
        let nodes = self.0.nodes.len();
        for tried in 1.. {
            let node = self.preferred() % nodes;
            let url = &self.0.nodes[node];
            let error = match self.dial(url).await {
                Dialled::Stands(socket) => return Ok((socket, url.to_string())),
                Dialled::Never(error) => return Err(error),
                Dialled::Later(error) => error,
            };
            self.prefer(node + 1);
            let pause = if tried % nodes == 0 { ROUND_PAUSE } else { Duration::ZERO };
            if begun.elapsed() + pause >= within {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("rounds go on until there is an answer or no time")
    }

    async fn dial(&self, url: &Url) -> Dialled {
        let garbled =
            |what: &str| ClientError::Garbled { url: url.to_string(), what: what.to_owned() };
        let late = || ClientError::Timeout { url: url.to_string(), after: DIAL_WITHIN };
        let upgraded = tokio::time::timeout(DIAL_WITHIN, self.upgrade(url)).await;
        let (stream, mut read) = match upgraded {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => {
                let url = url.to_string();
                return Dialled::Later(ClientError::Broken { url, source: error });
            }
            Err(_elapsed) => return Dialled::Later(late()),
        };
        let Some(end) = head_end(&read) else { return Dialled::Later(garbled("no head")) };
        let head = read.split_to(end);
        let status = std::str::from_utf8(&head).ok().and_then(|text| text.split(' ').nth(1));
        match status {
            Some("101") => Dialled::Stands(Socket { stream, early: read }),
            Some("503" | "429") => Dialled::Later(refused(&read).unwrap_or_else(|| garbled("503"))),
            Some(_status) => Dialled::Never(
                refused(&read).unwrap_or_else(|| garbled("it does not know the native stream")),
            ),
            None => Dialled::Never(garbled("no status line")),
        }
    }

    /// Sends the head, and reads the answer's with whatever comes with it.
    async fn upgrade(&self, url: &Url) -> std::io::Result<(TcpStream, BytesMut)> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((bare, port)).await?;
        stream.set_nodelay(true)?;
        let token = self.0.token.as_deref();
        let token = token.map_or(String::new(), |it| format!("Authorization: Bearer {it}\r\n"));
        let head = format!(
            "GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: upgrade\r\n\
             Upgrade: {PROTOCOL}\r\n{token}\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut read = BytesMut::with_capacity(4096);
        while !is_whole(&read) && read.len() < HEAD_BYTES_MAX {
            if stream.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        Ok((stream, read))
    }
}

fn head_end(read: &[u8]) -> Option<usize> {
    read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether a head is there, with the body that it announces.
fn is_whole(read: &[u8]) -> bool {
    let Some(end) = head_end(read) else { return false };
    let Ok(head) = std::str::from_utf8(&read[..end]) else { return true };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    read.len() >= end + length.unwrap_or(0)
}

fn refused(body: &[u8]) -> Option<ClientError> {
    serde_json::from_slice::<Problem>(body).ok().map(ClientError::from)
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_refusal_is_read_with_its_body() {
        let text = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..text.len() {
            assert!(!is_whole(&text[..end]), "cut at {end}");
        }
        assert!(is_whole(text));
        assert!(is_whole(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    }
}
