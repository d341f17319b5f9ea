//! Handing a token to Git: by a file of mode 0600 that Git's own `credential-store` reads, in a folder that is cleared
//! at every start. So the token is in no argument list, no environment and no URL, and Git gives it to no other host:
//! the file names the one it is for.

use super::TOKEN_USER;
use std::io::{Result, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Removed when dropped.
pub(super) struct Credential {
    file: Option<NamedTempFile>,
}

impl Credential {
    pub fn new(folder: &Path, url: &str, token: Option<&str>) -> Result<Self> {
        let Some(token) = token else { return Ok(Self { file: None }) };
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(Self { file: None }) };
        let host = rest.split('/').next().unwrap_or_default();
        let mut file = NamedTempFile::new_in(folder)?;
        writeln!(file, "{scheme}://{TOKEN_USER}:{}@{host}", percent_encoded(token))?;
        file.flush()?;
        Ok(Self { file: Some(file) })
    }

    /// Value of Git's `credential.helper`. Only questions are passed on: the helper would otherwise rewrite the file
    /// with what worked.
    pub fn helper(&self) -> Option<String> {
        let path = self.file.as_ref()?.path().to_str()?;
        let quoted = path.replace('\'', r"'\''");
        // Git puts the question behind the whole text and hands that to a shell: a function is what makes it `$1`.
        Some(format!(r#"!kiops() {{ test "$1" = get && exec git credential-store --file='{quoted}' get; }}; kiops"#))
    }
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_its_owner_reads_it_and_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let credential = Credential::new(folder.path(), "http://h:81/a/b.git", Some("to:k@n/ü")).unwrap();
        let helper = credential.helper().unwrap();
        assert!(!helper.contains("to:k"));
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "http://oauth2:to%3Ak%40n%2F%C3%BC@h:81\n");
        drop(credential);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Credential::new(folder.path(), "http://h/a", None).unwrap().helper().is_none());
    }
}
