//! Secrets of sessions and links: random, and stored as a hash only. They are long enough that a plain hash is safe.

use crate::problems::random_hex;
use sha2::{Digest, Sha256};

const BYTES: usize = 32;

/// 256 random bits in hex.
pub fn new() -> String {
    random_hex::<BYTES>()
}

/// Whether it could be one: what is not never reaches the database.
pub fn is_token(text: &str) -> bool {
    text.len() == 2 * BYTES && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_their_hash_is_another() {
        let token = new();
        assert!(is_token(&token) && token != new() && hash(&token) != token);
        for bad in ["", "abc", &token[1..], &format!("{}g", &token[1..])] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
