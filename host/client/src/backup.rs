//! A backup of the whole cluster, as it comes.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;

/// A node that gives nothing for so long is lost. It writes a group's state out between two pieces.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

/// The pieces of one file, in order. Only one that has ended without an error may be whole; its
/// reader knows.
pub struct BackupStream {
    response: Response,
    url: String,
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupStream").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// A backup of the cluster as it is when this returns, with the blobs that records refer to or
    /// without.
    pub async fn backup(&self, blobs: bool) -> Result<BackupStream, ClientError> {
        let ask = Ask::get(&["v1", "cluster", "backup"]).query("blobs", blobs);
        let answer = self.ask_head(ask).await?;
        Ok(BackupStream { response: answer.response, url: answer.url.to_string() })
    }
}

impl BackupStream {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match tokio::time::timeout(PIECE_WITHIN, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => Err(ClientError::Unreachable { url: self.url.clone(), source }),
            Err(_elapsed) => {
                Err(ClientError::Timeout { url: self.url.clone(), after: PIECE_WITHIN })
            }
        }
    }
}
