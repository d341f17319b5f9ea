//! Putting a server together, in the order that makes it safe: nothing is opened before the folder is ours, nothing is
//! served before the key fits, and the queue runs only once everything else is there.

use crate::accounts::LocalAccounts;
use crate::builds::{Builds, BuildsConfig, Parts, retain};
use crate::check::{Check, LocalCheck, Place};
use crate::config::{Config, Program, RunnerKind};
use crate::disk::Disk;
use crate::folder::DataFolder;
use crate::git::{AddressPolicy, Git};
use crate::http::{Edge, Hosts, Site, router};
use crate::registry::RegistryClient;
use crate::runner::Runner;
use crate::runner::kubernetes::{Connection, KubernetesConfig, KubernetesRunner};
use crate::runner::local::{LocalConfig, LocalRunner};
use crate::secrets::{KeySource, Sealer};
use crate::services::{Credentials, LocalServices, LocalSystem, demo};
use crate::store::{self, DatabaseUrl, Retention, SharedStore, Sole, StoreError};
use anyhow::{Context, Result, anyhow, ensure};
use axum::serve::ListenerExt;
use kiops_app::backend::Backend;
use kiops_events::trust;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What requests that are under way may still take when the server is told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Starts a server and serves until `shutdown` is cancelled. An error is a sentence for whoever started it.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    let bound = listener.local_addr().context("The listening address cannot be read")?;
    let base = config.base_url(bound);
    let addresses = AddressPolicy { loopback: config.loopback_allowed(bound) };
    let folder = DataFolder::open(&config.data)?;
    let url =
        config.secrets.database_url.clone().unwrap_or_else(|| DatabaseUrl::sqlite(folder.path().join("kiops.db")));
    // Another server on the same database would take this one's builds for lost.
    let sole = Sole::take(&url).await?;
    let store = open_store(&url).await?;
    let key = KeySource {
        value: config.secrets.secret_key.as_ref().map(|key| key.expose()),
        file: &config.key_file(folder.path()),
    };
    let sealer = Arc::new(Sealer::unlock(&*store, key).await?);

    let credentials = Credentials::new(store.clone(), sealer.clone());
    let disk = Arc::new(Disk::new(folder.path(), config.min_free_bytes));
    let git = Arc::new(Git::new(&folder.tmp(), &folder.path().join("git"), addresses));
    let registry = Arc::new(RegistryClient::new(addresses));
    let (runner, place) = runner(&config, &folder, addresses, &store).await?;
    let check = Arc::new(Check::new(place, registry.clone(), shutdown.clone()));
    let builds = Builds::new(Parts {
        store: store.clone(),
        runner,
        sealer,
        heads: git.clone(),
        registry: registry.clone(),
        disk: disk.clone(),
        config: BuildsConfig {
            builds_at_once: config.builds_at_once(),
            log_cap_bytes: config.log_cap_bytes,
            hold: Duration::from_secs(config.hold_s),
            profiles: config.profiles(),
            ..BuildsConfig::new(folder.owner()?)
        },
    });
    let accounts = Arc::new(LocalAccounts::new(store.clone(), Duration::from_secs(config.session_s)));
    let services = Arc::new(LocalServices {
        store: store.clone(),
        credentials: credentials.clone(),
        git,
        registry,
        builds: builds.clone(),
    });
    let in_pods = config.runner == RunnerKind::Kubernetes;
    let system = Arc::new(LocalSystem {
        store: store.clone(),
        disk: disk.clone(),
        builds: builds.clone(),
        builds_at_once: config.builds_at_once(),
        profiles: config.profiles(),
        limits_hold: in_pods || rustix::process::geteuid().is_root(),
        keeps_cache_mounts: !in_pods || config.kubernetes.state().is_some(),
        check,
    });

    let link = accounts
        .prepare(config.secrets.admin_password.as_ref())
        .await
        .map_err(|problem| anyhow!("The administrator cannot be prepared: {problem}"))?;
    if let Some(file) = &config.demo_service {
        demo::register_once(file, &services, &accounts.administrator().await?).await?;
    }

    let edge = Edge {
        backend: Backend { accounts: accounts.clone(), services, builds: Arc::new(builds.clone()), system },
        builds: builds.clone(),
        hosts: Arc::new(Hosts::new(&config)),
        site: Site::new(&config.site_root),
        stopping: shutdown.clone(),
    };
    builds.spawn();
    let tasks = TaskTracker::new();
    tasks.spawn({
        let shutdown = shutdown.clone();
        async move { disk.watch(shutdown).await }
    });
    tasks.spawn({
        let shutdown = shutdown.clone();
        async move { accounts.sweep(shutdown).await }
    });
    tasks.spawn({
        let shutdown = shutdown.clone();
        async move { credentials.sweep(shutdown).await }
    });
    let retention = Retention { days: config.retention_days, newest: config.retention_builds };
    tasks.spawn(retain::run(store.clone(), retention, shutdown.clone()));
    let watch = tasks.spawn({
        let shutdown = shutdown.clone();
        async move {
            let ended = sole.watch(&shutdown).await;
            // Whoever else has the database now runs its builds: nothing more may be done with it here.
            shutdown.cancel();
            ended
        }
    });
    tasks.close();

    tracing::info!("listening on {base}");
    if let Some(token) = link {
        println!("Set the administrator's password. The link works once, for 24 hours:\n  {base}/setup/{token}");
    }
    let served = serve(edge, listener, shutdown.clone()).await;

    shutdown.cancel();
    builds.stop().await;
    tasks.wait().await;
    store.close().await;
    tracing::info!("stopped");
    // Last: until here the database was this server's own.
    let sole = watch.await.context("The watch over the database ended")??;
    drop(sole);
    served
}

async fn open_store(url: &DatabaseUrl) -> Result<SharedStore> {
    let store = store::open(url).await.map_err(|error| match error {
        StoreError::NewerSchema { found, known } => anyhow!(
            "The database {url} was written by a newer version of KIOPS Build (its schema is {found}, this program knows \
             {known}). Start that version, or put a backup of before its upgrade back"
        ),
        error => anyhow::Error::new(error).context(format!("The database {url} cannot be opened")),
    })?;
    // Makes the first organisation and its administrator.
    store.installation().await.with_context(|| format!("The database {url} cannot be read"))?;
    Ok(store)
}

/// Who runs builds, and what can be tried out there.
async fn runner(
    config: &Config,
    folder: &DataFolder,
    addresses: AddressPolicy,
    store: &SharedStore,
) -> Result<(Arc<dyn Runner>, Place)> {
    match config.runner {
        RunnerKind::Local => {
            let place = Place::Local(local_check(config, folder.path(), addresses));
            Ok((Arc::new(local_runner(config, folder, addresses)?), place))
        }
        RunnerKind::Kubernetes => {
            config.kubernetes.own_image.as_ref().context(
                "KIOPS_IMAGE should name this product's own image: build Pods take the agent from it (see deploy/kubernetes)",
            )?;
            let installation = store.installation().await?.id;
            let connection = Arc::new(Connection::new(config.kubernetes.kubeconfig.clone()));
            if let Err(reason) = connection.client().await {
                tracing::error!(reason, "the cluster cannot be used: builds wait until it can");
            }
            let config = kubernetes_config(config, addresses, installation)?;
            let place = Place::Kubernetes(connection.clone(), Box::new(config.clone()));
            Ok((Arc::new(KubernetesRunner::new(connection, config)), place))
        }
    }
}

/// What a check without a server looks at. Its objects are told from those of all servers by their installation.
pub(crate) fn place_of_check(config: &Config) -> Result<Place> {
    let addresses = AddressPolicy { loopback: config.loopback_allowed(config.listen) };
    Ok(match config.runner {
        RunnerKind::Local => Place::Local(local_check(config, &config.data, addresses)),
        RunnerKind::Kubernetes => {
            let connection = Connection::new(config.kubernetes.kubeconfig.clone());
            Place::Kubernetes(Arc::new(connection), Box::new(kubernetes_config(config, addresses, "check".to_owned())?))
        }
    })
}

/// Where no image of the product is named it is empty, and no Pod can be made.
fn kubernetes_config(config: &Config, addresses: AddressPolicy, installation: String) -> Result<KubernetesConfig> {
    let settings = &config.kubernetes;
    // Pods reach the network as this server does.
    let names = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    let proxies = names.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    let proxies = proxies.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)));
    Ok(KubernetesConfig {
        namespace: settings.namespace.clone(),
        installation,
        builder_image: settings.builder_image(),
        own_image: settings.own_image.clone().unwrap_or_default(),
        isolation: settings.isolation,
        image_pull_secrets: settings.image_pull_secrets.clone(),
        node_selector: settings.node_selector(),
        tolerations: settings.tolerations(),
        platform: settings.platform.clone(),
        proxies: proxies.collect(),
        authorities: authorities()?,
        dockerhub_mirrors: config.dockerhub_mirror.iter().cloned().collect(),
        insecure_registries: config.insecure_registries.clone(),
        addresses,
        state: settings.state(),
        patience: settings.patience(),
    })
}

fn local_check(config: &Config, data: &Path, addresses: AddressPolicy) -> LocalCheck {
    LocalCheck {
        data: data.to_owned(),
        min_free_bytes: config.min_free_bytes,
        agent: config.program(Program::Agent),
        buildkitd: config.program(Program::Buildkitd),
        buildctl: config.program(Program::Buildctl),
        dockerhub_mirrors: config.dockerhub_mirror.iter().cloned().collect(),
        insecure_registries: config.insecure_registries.clone(),
        addresses,
    }
}

/// Whom this server was told to trust, by the variable that its own libraries read.
fn authorities() -> Result<Option<Vec<u8>>> {
    // What a Secret takes, less what else is in it.
    const MOST_BYTES: usize = 700_000;
    let Some(file) = std::env::var_os(trust::CERT_FILE) else { return Ok(None) };
    let file = Path::new(&file);
    let pem = std::fs::read(file).with_context(|| {
        format!("SSL_CERT_FILE should be a file of certificates; {} cannot be read", file.display())
    })?;
    ensure!(
        pem.len() <= MOST_BYTES,
        "SSL_CERT_FILE should have at most {MOST_BYTES} bytes, as it goes into every build's Secret; {} has {}",
        file.display(),
        pem.len()
    );
    Ok(Some(pem))
}

fn local_runner(config: &Config, folder: &DataFolder, addresses: AddressPolicy) -> Result<LocalRunner> {
    let program = |program| config.program(program).map_err(|sentence| anyhow!(sentence));
    LocalRunner::new(LocalConfig {
        data: folder.path().to_owned(),
        agent: program(Program::Agent)?,
        buildkitd: program(Program::Buildkitd)?,
        buildctl: program(Program::Buildctl)?,
        dockerhub_mirrors: config.dockerhub_mirror.iter().cloned().collect(),
        insecure_registries: config.insecure_registries.clone(),
        addresses,
    })
}

/// Until every connection has ended, or the grace time has.
async fn serve(edge: Edge, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
    // A line of a log is a small packet, and it is to arrive now.
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let serving = axum::serve(listener, router(edge)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.context("Serving ended"),
        () = too_late => {
            tracing::warn!("requests that took too long are given up");
            Ok(())
        }
    }
}
