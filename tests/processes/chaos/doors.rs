//! A way into each namespace: a node's HTTP door listens on the loopback of its own
//! namespace, and here at the same address stands somebody who passes bytes on. Who is
//! stopped, killed or cut off looks from here as it would from a neighbour.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::space::Space;

/// All of them, open until dropped.
pub(crate) struct Doors {
    close: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Doors {
    /// One for each node: its namespace, and where it serves there.
    pub(crate) fn open(spaces: &[Space], served: &[SocketAddr]) -> std::io::Result<Self> {
        let (close, closed) = watch::channel(());
        let mut threads = Vec::new();
        for (space, at) in spaces.iter().zip(served) {
            let listener = TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            let (at, closed) = (*at, closed.clone());
            threads.push(space.inside(move || stand(listener, at, closed)));
        }
        Ok(Self { close: Some(close), threads })
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        drop(self.close.take());
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn stand(listener: TcpListener, at: SocketAddr, mut closed: watch::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _closed = closed.changed() => return,
            };
            if let Ok((outside, _from)) = accepted {
                tokio::spawn(pass(outside, at));
            }
        }
    });
}

/// Until either side ends. Whoever asks a node that is not there finds the connection closed.
async fn pass(mut outside: TcpStream, at: SocketAddr) {
    let Ok(mut inside) = TcpStream::connect(at).await else { return };
    if outside.set_nodelay(true).is_ok() && inside.set_nodelay(true).is_ok() {
        tokio::io::copy_bidirectional(&mut outside, &mut inside).await.ok();
    }
}
