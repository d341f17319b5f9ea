//! Whom the programs of a build trust, by the one variable that whoever runs the product sets.

/// A file of certificates in place of the machine's own. This product and Go's programs read it by themselves.
pub const CERT_FILE: &str = "SSL_CERT_FILE";
/// Git does not; it has this one.
pub const GIT_CA_INFO: &str = "GIT_SSL_CAINFO";

/// What Git is told: its own variable where that is set, else what everybody else reads.
pub fn git_authorities<T>(variable: impl Fn(&str) -> Option<T>) -> Option<T> {
    variable(GIT_CA_INFO).or_else(|| variable(CERT_FILE))
}
