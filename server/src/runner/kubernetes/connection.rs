//! The way to the cluster's API. Its kubeconfig may not be usable yet: the server runs all the same, builds wait as they do
//! for an API server that is away, and whoever mends the file need not start anything again.

use super::client;
use kube::Client;
use std::path::PathBuf;
use tokio::sync::OnceCell;

/// Made when it is first needed and can be.
pub struct Connection {
    /// None: by the Pod's own account, or the user's usual one.
    kubeconfig: Option<PathBuf>,
    client: OnceCell<Client>,
}

impl Connection {
    pub fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, client: OnceCell::new() }
    }

    /// Or why not, as a sentence for whoever can mend it.
    pub async fn client(&self) -> Result<Client, String> {
        let made = self.client.get_or_try_init(|| client(self.kubeconfig.as_deref())).await;
        made.cloned().map_err(|error| format!("KIOPS_KUBECONFIG should name a kubeconfig that can be used: {error:#}"))
    }
}

impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self { kubeconfig: None, client: OnceCell::new_with(Some(client)) }
    }
}
