//! What the kernel may do with a connection's bytes.

use std::io;
use std::time::Duration;

use libp2p::tcp::tokio::TcpStream;
use socket2::SockRef;

/// Bytes that the kernel keeps unsent. Left alone it takes 4 MB, and a vote waits behind them: 16 ms
/// on loopback beside full bulk, against 4 to 5 ms with this, at the same throughput. What is sent
/// and not yet acknowledged does not count, so a long line is still filled.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// A connection whose bytes go unacknowledged for so long is dead to the kernel as well. Pings give it
/// up before; without this its socket would take a quarter of an hour to close.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

/// Sets what it can: a system that denies an option is slower and not wrong.
pub(crate) fn limit(stream: TcpStream) -> TcpStream {
    if let Err(error) = set(&SockRef::from(&stream.0)) {
        tracing::debug!(%error, "a socket keeps the system's limits");
    }
    stream
}

#[cfg(target_os = "linux")]
fn set(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// Other systems have these options under other names or not at all.
#[cfg(not(target_os = "linux"))]
fn set(_: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}
