//! The hash chain over an attempt's events: agent and server both keep one and compare them at the end.
//!
//! A chain instead of one running hash, because its state is 32 bytes that can be stored with every append and taken up
//! again after a restart.

use sha2::{Digest, Sha256};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub count: u64,
    pub state: [u8; 32],
}

impl Chain {
    /// Takes the stored form up again; `None` when it is not 32 bytes of hex.
    pub fn from_parts(count: u64, hex: &str) -> Option<Self> {
        let mut state = [0u8; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (i, byte) in state.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).ok()?;
        }
        Some(Self { count, state })
    }

    pub fn push(&mut self, payload: &[u8]) {
        let mut hash = Sha256::new();
        hash.update(self.state);
        hash.update(payload);
        self.state = hash.finalize().into();
        self.count += 1;
    }

    pub fn hex(&self) -> String {
        use std::fmt::Write;
        self.state.iter().fold(String::with_capacity(64), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_being_stored_between_any_two_events() {
        let payloads: [&[u8]; 3] = [b"one", b"", b"three"];
        let mut whole = Chain::default();
        let mut resumed = Chain::default();
        for p in payloads {
            whole.push(p);
            resumed.push(p);
            resumed = Chain::from_parts(resumed.count, &resumed.hex()).unwrap();
        }
        assert_eq!(whole, resumed);
        assert_eq!(whole.count, 3);
    }

    #[test]
    fn order_and_borders_matter() {
        let hash = |parts: &[&[u8]]| {
            let mut c = Chain::default();
            parts.iter().for_each(|p| c.push(p));
            c.hex()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a", b"b"]), hash(&[b"b", b"a"]));
    }

    #[test]
    fn refuses_what_is_not_a_hash() {
        assert!(Chain::from_parts(1, "zz").is_none());
        assert!(Chain::from_parts(1, &"g".repeat(64)).is_none());
    }
}
