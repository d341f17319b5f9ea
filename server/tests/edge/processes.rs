//! What other processes of this machine may see of a process: its arguments and its environment; and a secret in all the
//! forms in which it could stand there.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashSet;
use std::path::PathBuf;

#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
    /// Looked at before the environment: who becomes another program in between shows that program's.
    pub program: Option<PathBuf>,
    pub arguments: Vec<u8>,
    pub environment: Vec<u8>,
}

/// All that may be looked at now.
pub fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let folder: PathBuf = entry.path();
            let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
            // The name stands in brackets and may hold any sign.
            let (before, after) = stat.rsplit_once(')')?;
            Some(Process {
                pid,
                parent: after.split_whitespace().nth(1)?.parse().ok()?,
                name: before.split_once('(')?.1.to_owned(),
                program: std::fs::read_link(folder.join("exe")).ok(),
                arguments: std::fs::read(folder.join("cmdline")).unwrap_or_default(),
                environment: std::fs::read(folder.join("environ")).unwrap_or_default(),
            })
        })
        .collect()
}

/// Those that `ancestor` has started, and theirs.
pub fn descendants(ancestor: u32) -> Vec<Process> {
    let mut others = processes();
    let mut known = HashSet::from([ancestor]);
    let mut found = Vec::new();
    loop {
        let (of_it, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|process| known.contains(&process.parent));
        if of_it.is_empty() {
            return found;
        }
        known.extend(of_it.iter().map(|process| process.pid));
        found.extend(of_it);
        others = rest;
    }
}

/// A secret, to be looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Wanted {
    /// As it is, as an address writes it, and as it stands within anything that was encoded in base64.
    pub fn new(what: &'static str, secret: &str) -> Self {
        let encoded: String = secret
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let mut forms = vec![secret.as_bytes().to_vec(), encoded.to_lowercase().into_bytes(), encoded.into_bytes()];
        for before in 0..3 {
            let text = BASE64_STANDARD.encode([&b"xx"[..before], secret.as_bytes()].concat());
            // What stands around it decides over the signs at both ends.
            forms.push(text.as_bytes()[if before == 0 { 0 } else { 4 }..text.len() - 4].to_vec());
        }
        Self { what, forms }
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| memchr::memmem::find(bytes, form).is_some())
    }
}

#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let wanted = Wanted::new("it", "hunter22/and+more");
    for holder in ["x=hunter22/and+more", "hunter22%2Fand%2Bmore", "hunter22%2fand%2bmore"] {
        assert!(wanted.is_in(holder.as_bytes()), "{holder}");
    }
    for around in ["", "u:", "oauth2:", "bot:", "a:b:"] {
        assert!(wanted.is_in(BASE64_STANDARD.encode(format!("{around}hunter22/and+more\n")).as_bytes()), "{around}");
    }
    assert!(!wanted.is_in(b"hunter22"));
}
