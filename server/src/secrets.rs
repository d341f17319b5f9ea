//! Secrets at rest: sealed with AES-256-GCM under one key that never lies in the database.
//!
//! A sealed value is a version byte, a random 96-bit nonce, and the ciphertext with its tag. The row's id is bound in as
//! associated data: a value copied into another row does not open. The installation's key comes from the environment or
//! from a file beside the data; everything that is used is derived from it, each for its purpose.
//!
//! What never enters: deciding who may see a secret. What never leaves: the key, and plaintext in a `Debug` or an error.

use crate::store::{SecretRow, Store, StoreError};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use hmac::{Hmac, Mac};
use kiops_app::model::{OrgId, SecretId, UserId};
use rustix::fs::{Mode, OFlags};
use sha2::Sha256;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const VERSION: u8 = 1;
/// What the key check seals, and the id it is bound to.
const CHECK_TEXT: &[u8] = b"kiops";
const CHECK_ID: &str = "installation";

/// Where the key may come from.
#[derive(Clone, Copy)]
pub struct KeySource<'a> {
    /// The value of `KIOPS_SECRET_KEY`: 64 hexadecimal digits or base64 of 32 bytes. Comes before the file.
    pub value: Option<&'a str>,
    pub file: &'a Path,
}

/// Each is a sentence for whoever starts the server.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the key does not fit this database: its secrets were sealed with another one. Put the key file (or \
         KIOPS_SECRET_KEY) back that belongs to it"
    )]
    WrongKey,
    #[error("the key file {} is missing, and this database has secrets that need it: put it back", .0.display())]
    Missing(PathBuf),
    #[error("the key file {} can be read by others (mode {mode:04o}): run `chmod 600` on it", .path.display())]
    Loose { path: PathBuf, mode: u32 },
    #[error("{0} does not hold a key: 64 hexadecimal digits or base64 of 32 bytes are expected")]
    Malformed(String),
    #[error("the key file {} cannot be used: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no randomness: {0}")]
    NoRandomness(getrandom::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A sealed value that does not open: another key, another row, or damage. Which of them cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret cannot be opened with this key")]
pub struct CannotOpen;

/// An opened secret. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// None where it is not text; what people enter always is.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Seals and opens with the installation's key.
pub struct Sealer {
    key: Zeroizing<[u8; KEY_BYTES]>,
    cipher: Aes256Gcm,
    key_id: String,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.key_id)
    }
}

impl Sealer {
    /// Finds the installation's key, or makes one where the database has never had any, and proves that it fits.
    pub async fn unlock(store: &dyn Store, source: KeySource<'_>) -> Result<Self, KeyError> {
        let known = store.installation().await?.key_check;
        let sealer = match source.value {
            Some(value) => Self::new(parse_key(value).ok_or_else(|| KeyError::Malformed("KIOPS_SECRET_KEY".into()))?),
            None => Self::new(key_from_file(source.file, known.is_none())?),
        };
        let known = match known {
            Some(known) => known,
            None => {
                store.set_key_check(&sealer.seal(CHECK_ID, CHECK_TEXT)?).await?;
                // Whoever was first at the same moment: theirs is the key.
                store.installation().await?.key_check.unwrap_or_default()
            }
        };
        match sealer.open(CHECK_ID, &known) {
            Ok(text) if text.as_bytes() == CHECK_TEXT => Ok(sealer),
            _ => Err(KeyError::WrongKey),
        }
    }

    fn new(key: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let cipher_key = Zeroizing::new(derive(&key, "seal", ""));
        Self {
            cipher: Aes256Gcm::new((&*cipher_key).into()),
            key_id: hex::encode(&derive(&key, "key id", "")[..8]),
            key,
        }
    }

    /// Says which key a row was sealed with; tells nothing about the key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub fn seal(&self, id: &str, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(KeyError::NoRandomness)?;
        let ciphertext = self
            .cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: &bound_to(id) })
            // GCM's own limit is 64 GiB of plaintext.
            .expect("a secret is far shorter than what AES-GCM takes");
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    pub fn open(&self, id: &str, sealed: &[u8]) -> Result<Secret, CannotOpen> {
        let [VERSION, sealed @ ..] = sealed else { return Err(CannotOpen) };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(CannotOpen)?;
        self.cipher
            .decrypt(&Nonce::from(*nonce), Payload { msg: ciphertext, aad: &bound_to(id) })
            .map(|plaintext| Secret(Zeroizing::new(plaintext)))
            .map_err(|_| CannotOpen)
    }

    /// A secret as the store keeps it.
    pub fn seal_row(
        &self,
        id: SecretId,
        org_id: &OrgId,
        created_by: &UserId,
        plaintext: &[u8],
    ) -> Result<SecretRow, KeyError> {
        let sealed = self.seal(id.as_str(), plaintext)?;
        Ok(SecretRow {
            id,
            org_id: org_id.clone(),
            created_by: created_by.clone(),
            key_id: self.key_id.clone(),
            sealed,
        })
    }

    pub fn open_row(&self, row: &SecretRow) -> Result<Secret, CannotOpen> {
        if row.key_id != self.key_id {
            return Err(CannotOpen);
        }
        self.open(row.id.as_str(), &row.sealed)
    }

    /// A key of its own for one purpose and one context (a build's relay, say): it needs no row, and tells nothing about
    /// any other.
    pub fn derive(&self, purpose: &str, context: &str) -> [u8; 32] {
        derive(&self.key, purpose, context)
    }
}

fn derive(key: &[u8; KEY_BYTES], purpose: &str, context: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in ["kiops", purpose, context] {
        // The length keeps two different sequences of parts from reading the same.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn bound_to(id: &str) -> Vec<u8> {
    [b"kiops secret ", id.as_bytes()].concat()
}

fn parse_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let text = text.trim();
    let bytes = Zeroizing::new(
        hex::decode(text)
            .ok()
            .or_else(|| base64::engine::general_purpose::STANDARD.decode(text).ok())
            .or_else(|| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok())?,
    );
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    (bytes.len() == KEY_BYTES).then(|| key.copy_from_slice(&bytes))?;
    Some(key)
}

fn key_from_file(path: &Path, may_make: bool) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    match read_key(path) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    if !may_make {
        return Err(KeyError::Missing(path.to_owned()));
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *key).map_err(KeyError::NoRandomness)?;
    match write_new(path, &key) {
        Ok(()) => Ok(key),
        // Another server was quicker: its key counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
        Err(error) => Err(failed(error)),
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Loose { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    // A key is 64 letters; whatever file this is, not more than a little of it is read.
    file.take(1024).read_to_string(&mut text).map_err(failed)?;
    parse_key(&text).ok_or_else(|| KeyError::Malformed(format!("the key file {}", path.display())))
}

/// The file appears whole or not at all, on disk before anything is sealed with it: a key that a crash took back would
/// take every secret with it.
fn write_new(path: &Path, key: &[u8; KEY_BYTES]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", hex::encode(random)));
    let draft = folder.join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR)?);
    let mut text = hex::encode(key);
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        // A link, because unlike a rename it never replaces a key that is there.
        .and_then(|()| std::fs::hard_link(&draft, path));
    text.zeroize();
    std::fs::remove_file(&draft)?;
    written?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_app::model::ID_LETTERS;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(Zeroizing::new([byte; KEY_BYTES]))
    }

    #[test]
    fn a_secret_opens_in_its_own_row_with_its_own_key_only() {
        let one = sealer(1);
        let (id, other) = (SecretId::from_random([1; ID_LETTERS]), SecretId::from_random([2; ID_LETTERS]));
        let (org, user) = (OrgId::from_random([1; ID_LETTERS]), UserId::from_random([1; ID_LETTERS]));
        let row = one.seal_row(id.clone(), &org, &user, b"glpat-hunter22").unwrap();
        assert_eq!(one.open_row(&row).unwrap().as_str(), Some("glpat-hunter22"));
        assert_eq!(one.open_row(&SecretRow { id: other, ..row.clone() }), Err(CannotOpen));
        assert_eq!(sealer(2).open_row(&row), Err(CannotOpen));
        assert_eq!(sealer(2).open(id.as_str(), &row.sealed), Err(CannotOpen));
        for at in 0..row.sealed.len() {
            let mut bad = row.sealed.clone();
            bad[at] ^= 1;
            assert_eq!(one.open(id.as_str(), &bad), Err(CannotOpen), "byte {at}");
            assert_eq!(one.open(id.as_str(), &row.sealed[..at]), Err(CannotOpen), "cut at {at}");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let one = sealer(1);
        let sealed: std::collections::HashSet<_> = (0..100).map(|_| one.seal("x", b"same").unwrap()).collect();
        assert_eq!(sealed.len(), 100);
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_context() {
        let one = sealer(1);
        let keys = [one.derive("a", "bc"), one.derive("ab", "c"), one.derive("a", ""), sealer(2).derive("a", "bc")];
        let different: std::collections::HashSet<_> = keys.into_iter().collect();
        assert_eq!(different.len(), 4);
        assert_eq!(one.derive("a", "bc"), sealer(1).derive("a", "bc"));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let one = sealer(7);
        let opened = one.open("x", &one.seal("x", b"hunter22").unwrap()).unwrap();
        let shown = format!("{opened:?} {one:?}");
        assert!(!shown.contains("hunter") && !shown.contains(&hex::encode([7; KEY_BYTES])), "{shown}");
    }

    #[test]
    fn keys_are_read_in_each_spelling() {
        let key = [0xfb; KEY_BYTES];
        let hex = hex::encode(key);
        let standard = base64::engine::general_purpose::STANDARD.encode(key);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key);
        for text in [hex.as_str(), &hex.to_uppercase(), &standard, &url, &format!(" {hex}\n")] {
            assert_eq!(parse_key(text).as_deref(), Some(&key), "{text}");
        }
        for bad in ["", "00", &hex[1..], &format!("{hex}00"), "password"] {
            assert!(parse_key(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(key_from_file(&path, false), Err(KeyError::Missing(_))));
        let made = key_from_file(&path, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        for may_make in [true, false] {
            assert_eq!(key_from_file(&path, may_make).unwrap(), made);
        }
        assert_eq!(write_new(&path, &made).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn servers_that_start_together_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| key_from_file(&path, true).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        key_from_file(&path, true).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = key_from_file(&path, true).unwrap_err().to_string();
            assert!(said.contains("chmod 600") && said.contains(&format!("{mode:04o}")), "{said}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(key_from_file(&path, true).is_ok());
    }

    #[test]
    fn a_file_that_holds_no_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(key_from_file(&path, true), Err(KeyError::Malformed(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[tokio::test]
    async fn a_wrong_key_is_noticed_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let url = crate::store::DatabaseUrl::sqlite(folder.path().join("kiops.db"));
        let store = crate::store::open(&url).await.unwrap();
        let file = folder.path().join("key");
        let from_file = KeySource { value: None, file: &file };
        let first = Sealer::unlock(&*store, from_file).await.unwrap();
        let again = Sealer::unlock(&*store, from_file).await.unwrap();
        assert_eq!(first.key_id(), again.key_id());

        let other = hex::encode([9; KEY_BYTES]);
        let wrong = Sealer::unlock(&*store, KeySource { value: Some(&other), file: &file }).await;
        assert!(matches!(wrong, Err(KeyError::WrongKey)));
        std::fs::remove_file(&file).unwrap();
        let gone = Sealer::unlock(&*store, from_file).await;
        assert!(matches!(gone, Err(KeyError::Missing(_))));
        assert!(!file.exists(), "a missing key is not replaced by a new one");
        store.close().await;
    }
}
