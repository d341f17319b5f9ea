//! Pods trust whom the server was told to trust.

use super::*;
use crate::kill_rig::Server;

#[tokio::test]
async fn an_own_authority_is_trusted_by_pods() {
    let _turn = together().await;
    Server::in_pods(pods().await).await.trusts_whom_one_variable_names().await;
}
