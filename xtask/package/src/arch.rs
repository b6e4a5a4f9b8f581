//! The architectures that are packaged, by each of their names.

use std::fmt;

/// An architecture of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Arch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// This machine's.
    ///
    /// # Errors
    /// On a machine of another one.
    pub fn here() -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.rust() == std::env::consts::ARCH)
            .ok_or_else(|| anyhow::anyhow!("nothing is packaged for {}", std::env::consts::ARCH))
    }

    /// Its name in Rust's targets and in GNU's.
    pub fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Its name among images and in Debian.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its Rust target.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust())
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
