//! Where BuildKit's two programs are.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

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
            let bin = cache()?.join("tools").join(format!("buildkit-{}", version()?)).join("bin");
            BuildkitBins { buildkitd: bin.join("buildkitd"), buildctl: bin.join("buildctl") }
        }
    };
    for program in [&bins.buildkitd, &bins.buildctl] {
        ensure!(program.exists(), "{} is missing: run `make setup`", program.display());
    }
    Ok(bins)
}

/// The scripts' cache folder, found as `scripts/lib.sh` finds it.
fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("KIOPS_CACHE") {
        return Ok(cache.into());
    }
    let parent = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let parent = parent.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(parent.context("neither KIOPS_CACHE nor HOME is set")?.join("kiops-build"))
}

fn version() -> Result<&'static str> {
    include_str!("../../../scripts/versions.env")
        .lines()
        .find_map(|line| line.strip_prefix("BUILDKIT_VERSION="))
        .context("scripts/versions.env names no BuildKit version")
}
