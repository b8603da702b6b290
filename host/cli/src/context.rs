//! Where the cluster is: flags, then variables, then the file that `quorate dev` wrote.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, ended};

/// Names another context file.
const PATH_VARIABLE: &str = "QUORATE_CONTEXT";

/// A cluster that a command can speak to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The HTTP doors of its nodes.
    pub(crate) urls: Vec<String>,
    /// The token they want.
    pub(crate) token: Option<String>,
}

/// `$QUORATE_CONTEXT`, or `quorate/context.json` in the user's state directory.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let given = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    given("XDG_STATE_HOME")
        .or_else(|| given("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("quorate/context.json"))
        .with_context(|| format!("none of {PATH_VARIABLE}, XDG_STATE_HOME and HOME is set"))
}

impl Context {
    /// Writes it where only this user can read it, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let act = || format!("cannot write the context file {}", path.display());
        let folder = path.parent().with_context(act)?;
        fs::create_dir_all(folder).with_context(act)?;
        // `tempfile` makes it 0600, as a token must be.
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(act)?;
        file.write_all(&serde_json::to_vec_pretty(self)?).with_context(act)?;
        file.persist(path).with_context(act)?;
        Ok(())
    }

    /// Reads it; none where there is no such file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not a context file", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What flags and variables say, completed from the file. The file's token goes to the file's
    /// nodes alone: another URL must not be handed it.
    pub(crate) fn resolve(
        urls: &[String],
        token: Option<&str>,
        file: Option<Self>,
    ) -> anyhow::Result<Self> {
        let token = token.map(str::to_owned);
        if urls.is_empty() {
            let file = file.ok_or_else(|| {
                ended(
                    Exit::Usage,
                    "no cluster is named: no --url, no QUORATE_URL and no context file",
                    "quorate dev",
                )
            })?;
            return Ok(Self { token: token.or(file.token), urls: file.urls });
        }
        let ours = |file: &Self| urls.iter().all(|url| file.urls.contains(url));
        let token = token.or_else(|| file.filter(ours).and_then(|file| file.token));
        Ok(Self { urls: urls.to_vec(), token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Context {
        Context { urls: vec!["http://127.0.0.1:1".to_owned()], token: Some("secret".to_owned()) }
    }

    #[test]
    fn flags_win_and_the_files_token_goes_to_its_own_nodes_only() {
        let from_file = Context::resolve(&[], None, Some(file())).expect("the file will do");
        assert_eq!(from_file, file());
        let given = Context::resolve(&[], Some("other"), Some(file())).expect("a token is given");
        assert_eq!(given.token.as_deref(), Some("other"));
        let same = Context::resolve(&file().urls, None, Some(file())).expect("the same node");
        assert_eq!(same.token.as_deref(), Some("secret"));
        let stranger = ["http://elsewhere:1".to_owned()];
        let other = Context::resolve(&stranger, None, Some(file())).expect("a URL is given");
        assert_eq!(other.token, None, "a stranger is not handed our token");
        assert!(Context::resolve(&[], None, None).is_err(), "nothing names a cluster");
    }

    #[test]
    fn it_survives_the_disk_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/context.json");
        assert_eq!(Context::read(&path).expect("absent is no error"), None);
        file().write(&path).expect("written");
        assert_eq!(Context::read(&path).expect("read"), Some(file()));
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "only its owner may read a token");
    }
}
