//! Where BuildKit's two programs are.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::home::{cache, pinned};

/// The daemon and its client.
#[derive(Debug, Clone)]
pub struct BuildkitBins {
    pub buildkitd: PathBuf,
    pub buildctl: PathBuf,
}

/// From `KIOPS_BUILDKITD` and `KIOPS_BUILDCTL`, else where `scripts/setup/buildkit.sh` puts them.
pub fn buildkit_bins() -> Result<BuildkitBins> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let bins = match (named("KIOPS_BUILDKITD"), named("KIOPS_BUILDCTL")) {
        (Some(buildkitd), Some(buildctl)) => BuildkitBins { buildkitd, buildctl },
        _ => {
            let bin = cache()?.join("tools").join(format!("buildkit-{}", pinned("BUILDKIT_VERSION")?)).join("bin");
            BuildkitBins { buildkitd: bin.join("buildkitd"), buildctl: bin.join("buildctl") }
        }
    };
    for program in [&bins.buildkitd, &bins.buildctl] {
        ensure!(program.exists(), "{} is missing: run `make setup`", program.display());
    }
    Ok(bins)
}
