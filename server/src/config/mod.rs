//! What the server can be told: each setting with its name, its default and the sentence that says what it should be.
//!
//! Secrets come by environment or file and never by argument, so they are read apart ([`Secrets`]) and cannot be printed.

mod kubernetes;
mod profiles;
mod programs;
mod values;

pub use kubernetes::{Kubernetes, RunnerKind};
pub use programs::Program;
pub(crate) use values::split_host;
pub use values::{LogFormat, PublicUrl, Secret};

use crate::store::DatabaseUrl;
use clap::Args;
use kiops_app::model::{Profile, Profiles};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use values::{between, host_and_port, listen, log_format, public_url, yes_or_no};

/// Settings of `kiops serve`.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// Folder of the database, the key and BuildKit's state
    #[arg(long, env = "KIOPS_DATA", value_name = "FOLDER", default_value = "./data")]
    pub data: PathBuf,

    /// Address and port that people's browsers are served on
    #[arg(long, env = "KIOPS_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3000", value_parser = listen)]
    pub listen: SocketAddr,

    /// Address that people use when a proxy stands in front, such as https://builds.example.com
    #[arg(long, env = "KIOPS_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub public_url: Option<PublicUrl>,

    /// Further host names that people use for this server, beside those of the loopback and of the public URL
    #[arg(long, env = "KIOPS_ALLOWED_HOSTS", value_name = "HOST,…", value_delimiter = ',', value_parser = |text: &str| host_and_port("KIOPS_ALLOWED_HOSTS", text))]
    pub allowed_hosts: Vec<String>,

    /// File of the key that seals tokens and passwords; made on the first start [default: secret.key in the data folder]
    #[arg(long, env = "KIOPS_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,

    /// BuildKit's daemon [default: beside this program, then in PATH]
    #[arg(long, env = "KIOPS_BUILDKITD", value_name = "FILE")]
    pub buildkitd: Option<PathBuf>,

    /// BuildKit's client [default: beside this program, then in PATH]
    #[arg(long, env = "KIOPS_BUILDCTL", value_name = "FILE")]
    pub buildctl: Option<PathBuf>,

    /// The program that carries a build out [default: beside this program, then in PATH]
    #[arg(long, env = "KIOPS_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,

    /// Registry that stands in for Docker Hub
    #[arg(long, env = "KIOPS_DOCKERHUB_MIRROR", value_name = "HOST:PORT", value_parser = |text: &str| host_and_port("KIOPS_DOCKERHUB_MIRROR", text))]
    pub dockerhub_mirror: Option<String>,

    /// Registries that are spoken to without TLS
    #[arg(long, env = "KIOPS_INSECURE_REGISTRIES", value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = |text: &str| host_and_port("KIOPS_INSECURE_REGISTRIES", text))]
    pub insecure_registries: Vec<String>,

    /// Where builds run: local (this machine) or kubernetes (Pods in a cluster)
    #[arg(long, env = "KIOPS_RUNNER", value_name = "WHERE", default_value = "local", value_parser = kubernetes::runner)]
    pub runner: RunnerKind,

    #[command(flatten)]
    pub kubernetes: Kubernetes,

    /// Amounts of Build Profiles that differ from the usual ones, as NAME=CPU/MEMORY[/DISK],… such as large=6/12Gi
    #[arg(long, env = "KIOPS_PROFILES", value_name = "NAME=SIZE,…", default_value = "", hide_default_value = true, value_parser = profiles::profiles)]
    pub profile_table: Profiles,

    /// Largest Build Profile that auto takes by itself: the largest that fits on a node. People may choose a larger one
    #[arg(long, env = "KIOPS_LARGEST_PROFILE", value_name = "NAME", default_value = "4x-large", value_parser = profiles::largest)]
    pub largest_profile: Profile,

    /// Builds that run at the same time [default: 2 on this machine, 10 in a cluster]
    #[arg(long, env = "KIOPS_BUILDS_AT_ONCE", value_name = "COUNT", value_parser = between::<u32>("KIOPS_BUILDS_AT_ONCE", 1, 256))]
    pub builds_at_once: Option<u32>,

    /// Free bytes in the data folder below which no new build is taken
    #[arg(long, env = "KIOPS_MIN_FREE_BYTES", value_name = "BYTES", default_value = "2147483648", value_parser = between::<u64>("KIOPS_MIN_FREE_BYTES", 0, u64::MAX))]
    pub min_free_bytes: u64,

    /// Bytes of log that are kept of one build; a marker in the log says how much was left out
    #[arg(long, env = "KIOPS_LOG_CAP_BYTES", value_name = "BYTES", default_value = "268435456", value_parser = between::<u64>("KIOPS_LOG_CAP_BYTES", 65_536, u64::MAX))]
    pub log_cap_bytes: u64,

    /// Days after which a finished build's log is removed; the build itself stays. 0 keeps logs for ever
    #[arg(long, env = "KIOPS_RETENTION_DAYS", value_name = "DAYS", default_value = "90", value_parser = between::<u32>("KIOPS_RETENTION_DAYS", 0, 36_500))]
    pub retention_days: u32,

    /// Newest builds of each service that keep their logs, however old
    #[arg(long, env = "KIOPS_RETENTION_BUILDS", value_name = "COUNT", default_value = "20", value_parser = between::<u32>("KIOPS_RETENTION_BUILDS", 0, 1_000_000))]
    pub retention_builds: u32,

    /// Seconds that a finished build's agent waits for the server before it gives up
    #[arg(long, env = "KIOPS_HOLD_S", value_name = "SECONDS", default_value = "600", value_parser = between::<u64>("KIOPS_HOLD_S", 1, 86_400))]
    pub hold_s: u64,

    /// Seconds after which a session ends and its owner signs in again
    #[arg(long, env = "KIOPS_SESSION_S", value_name = "SECONDS", default_value = "86400", value_parser = between::<u64>("KIOPS_SESSION_S", 1, 2_592_000))]
    pub session_s: u64,

    /// Whether Git hosts and registries may be on this machine's loopback [default: true while listening on the loopback]
    #[arg(long, env = "KIOPS_ALLOW_LOOPBACK", value_name = "true|false", value_parser = |text: &str| yes_or_no("KIOPS_ALLOW_LOOPBACK", text))]
    pub allow_loopback: Option<bool>,

    /// JSON of a service (the body of POST /api/v1/services) that is registered once, when there is none of its name
    #[arg(long, env = "KIOPS_DEMO_SERVICE", value_name = "FILE")]
    pub demo_service: Option<PathBuf>,

    /// Folder of the web page's files
    #[arg(long, env = "LEPTOS_SITE_ROOT", value_name = "FOLDER", default_value = "target/site")]
    pub site_root: PathBuf,

    /// What is logged: error, warn, info, debug or trace, also by module (`info,kiops_server::git=debug`)
    #[arg(long = "log", env = "KIOPS_LOG", value_name = "LEVEL", default_value = "info")]
    pub log: String,

    /// How it is logged: text or json
    #[arg(long, env = "KIOPS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    pub log_format: LogFormat,

    #[arg(skip)]
    pub secrets: Secrets,
}

/// Settings that must not stand in an argument list; `kiops serve --help` names them at its end.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// None: SQLite in the data folder.
    pub database_url: Option<DatabaseUrl>,
    /// In place of the key file.
    pub secret_key: Option<Secret>,
    /// Password of the user `admin`, in place of the one-time link.
    pub admin_password: Option<Secret>,
}

/// The part of the help that Clap does not know of.
pub const SECRETS_HELP: &str = "\
Secrets are taken from the environment only:
  KIOPS_DATABASE_URL    postgres://USER:PASSWORD@HOST/DATABASE or sqlite:FILE [default: SQLite in the data folder]
  KIOPS_SECRET_KEY      32 bytes in hex or base64: the key that seals tokens and passwords, in place of the key file
  KIOPS_ADMIN_PASSWORD  sets the password of the user `admin`; no one-time link is printed then";

impl Secrets {
    /// Reads them and checks their form. No message repeats a value.
    pub fn from_env() -> Result<Self, String> {
        let database_url = match Secret::from_env("KIOPS_DATABASE_URL")? {
            Some(url) => Some(url.expose().parse().map_err(|_| {
                "KIOPS_DATABASE_URL should be postgres://USER:PASSWORD@HOST/DATABASE or sqlite:FILE".to_owned()
            })?),
            None => None,
        };
        Ok(Self {
            database_url,
            secret_key: Secret::from_env("KIOPS_SECRET_KEY")?,
            admin_password: Secret::from_env("KIOPS_ADMIN_PASSWORD")?,
        })
    }
}

impl Config {
    /// What the names of Build Profiles mean here.
    pub fn profiles(&self) -> Profiles {
        let mut profiles = self.profile_table.clone();
        profiles.set_largest(self.largest_profile);
        profiles
    }

    pub fn builds_at_once(&self) -> u32 {
        self.builds_at_once.unwrap_or(match self.runner {
            RunnerKind::Local => 2,
            RunnerKind::Kubernetes => 10,
        })
    }

    /// The key's file; `data` is the data folder as it was found.
    pub fn key_file(&self, data: &Path) -> PathBuf {
        self.secret_key_file.clone().unwrap_or_else(|| data.join("secret.key"))
    }

    /// Where people find this server, without a slash at the end. `bound` is the address that it really listens on.
    pub fn base_url(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.origin.clone(),
            None if bound.ip().is_unspecified() => format!("http://127.0.0.1:{}", bound.port()),
            None => format!("http://{bound}"),
        }
    }

    /// A server that only this machine reaches may reach this machine: nobody gains anything by it. One that others
    /// reach must not become their way to services that trust the loopback.
    pub fn loopback_allowed(&self, bound: SocketAddr) -> bool {
        self.allow_loopback.unwrap_or_else(|| bound.ip().is_loopback())
    }
}
