//! Typed ids. Their prefix says what they are, and their alphabet fits a URL, a file name and a Kubernetes name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Letters after the prefix: 20 of base 32 are 100 bits.
pub const ID_LETTERS: usize = 20;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// An id that is not one: what stands in a URL is anybody's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id")
    }
}

impl std::error::Error for BadId {}

fn letters(random: [u8; ID_LETTERS]) -> String {
    random.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id of random bytes; the caller brings the randomness.
            pub fn from_random(random: [u8; ID_LETTERS]) -> Self {
                Self(format!(concat!($prefix, "{}"), letters(random)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                match text.strip_prefix($prefix) {
                    Some(rest) if rest.len() == ID_LETTERS && rest.bytes().all(|b| ALPHABET.contains(&b)) => {
                        Ok(Self(text.to_owned()))
                    }
                    _ => Err(BadId),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A service: a repository, a registry, build settings.
    ServiceId,
    "svc-"
);
id!(
    /// A build of a service.
    BuildId,
    "bld-"
);
id!(
    /// A person.
    UserId,
    "usr-"
);
id!(
    /// An organisation: whoever owns services.
    OrgId,
    "org-"
);
id!(
    /// A stored secret.
    SecretId,
    "sec-"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_strangers_are_refused() {
        let id = BuildId::from_random([7; ID_LETTERS]);
        assert_eq!(id.as_str().parse::<BuildId>(), Ok(id.clone()));
        assert_eq!(id.as_str().parse::<ServiceId>(), Err(BadId));
        for bad in ["", "bld-", "bld-../../../../etc/pas", "bld-AAAAAAAAAAAAAAAAAAAA", "bld-aaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(bad.parse::<BuildId>(), Err(BadId), "{bad}");
        }
    }
}
