//! Finding the programs that the server starts.

use super::Config;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Agent,
    Buildkitd,
    Buildctl,
}

impl Program {
    fn file_name(self) -> &'static str {
        match self {
            Self::Agent => "kiops-agent",
            Self::Buildkitd => "buildkitd",
            Self::Buildctl => "buildctl",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Agent => "KIOPS_AGENT",
            Self::Buildkitd => "KIOPS_BUILDKITD",
            Self::Buildctl => "KIOPS_BUILDCTL",
        }
    }
}

impl Config {
    /// The file as configured, else beside this program, else in PATH. The error is a sentence. A program that was not
    /// configured may come later: a build that needs it says that it is missing.
    pub fn program(&self, program: Program) -> Result<PathBuf, String> {
        let name = program.file_name();
        let configured = match program {
            Program::Agent => &self.agent,
            Program::Buildkitd => &self.buildkitd,
            Program::Buildctl => &self.buildctl,
        };
        if let Some(file) = configured {
            if !is_program(file) {
                let (variable, file) = (program.variable(), file.display());
                return Err(format!("{variable} should be the path of {name}; {file} is not a program"));
            }
            return Ok(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        }
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = beside
            .into_iter()
            .chain(std::env::split_paths(&path).map(|folder| folder.join(name)))
            .find(|file| is_program(file));
        Ok(found.unwrap_or_else(|| {
            let variable = program.variable();
            tracing::warn!("{name} is neither beside this program nor in PATH; {variable} can name it");
            PathBuf::from(name)
        }))
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
