//! fio: which jobs are run, how it is brought to a node, and what it says.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::ctx::Ctx;

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it is called in tables.
    pub title: &'static str,
    /// What its figure counts.
    pub unit: &'static str,
    arguments: &'static [&'static str],
    writes: bool,
}

const fn job(
    title: &'static str,
    unit: &'static str,
    writes: bool,
    arguments: &'static [&'static str],
) -> Job {
    Job {
        title,
        unit,
        arguments,
        writes,
    }
}

/// What is run. All but the last bypass the page cache, which would answer for the disk.
pub const JOBS: [Job; 5] = [
    job(
        "sequential read",
        "MiB/s",
        false,
        &["--rw=read", "--bs=1M", "--direct=1", "--ioengine=psync"],
    ),
    job(
        "sequential write",
        "MiB/s",
        true,
        &["--rw=write", "--bs=1M", "--direct=1", "--ioengine=psync"],
    ),
    job(
        "random read 4k, 16 deep",
        "IOPS",
        false,
        &[
            "--rw=randread",
            "--bs=4k",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=16",
        ],
    ),
    job(
        "random write 4k, 16 deep",
        "IOPS",
        true,
        &[
            "--rw=randwrite",
            "--bs=4k",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=16",
        ],
    ),
    job(
        "random write 4k, fsync each",
        "IOPS",
        true,
        &["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=1"],
    ),
];

impl Job {
    /// fio's arguments for this job on a file.
    fn of(self, file: &str, mib: u64, seconds: u64) -> Vec<String> {
        let mut all = vec![
            "--name=job".to_owned(),
            format!("--filename={file}"),
            format!("--size={mib}M"),
            format!("--runtime={seconds}"),
        ];
        let fixed = ["--time_based", "--output-format=json", "--randrepeat=0"];
        all.extend(
            fixed
                .into_iter()
                .chain(self.arguments.iter().copied())
                .map(str::to_owned),
        );
        all
    }

    /// The job's figure in what fio printed.
    ///
    /// # Errors
    /// When it printed none.
    fn figure(self, json: &str) -> Result<f64> {
        #[derive(Deserialize)]
        struct Report {
            jobs: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            read: Side,
            write: Side,
        }
        #[derive(Deserialize)]
        struct Side {
            bw_bytes: f64,
            iops: f64,
        }
        // Warnings may come before it.
        let json = json
            .get(json.find('{').unwrap_or_default()..)
            .unwrap_or_default();
        let report: Report = serde_json::from_str(json).context("fio printed no report")?;
        let one = report.jobs.first().context("fio's report has no job")?;
        let side = if self.writes { &one.write } else { &one.read };
        let value = match self.unit {
            "IOPS" => side.iops,
            _ => side.bw_bytes / f64::from(1 << 20),
        };
        ensure!(value > 0.0, "fio moved no byte: {}", self.title);
        Ok(value)
    }
}

/// Where it lies on a node.
const HOME: &str = "/opt/berth-bench";

/// fio on one node: this machine's, with the libraries that it is linked with, since the
/// node's image has none.
pub struct Fio {
    ctx: Ctx,
    node: String,
    loader: String,
}

impl Fio {
    /// Brings it to a node of the rig.
    ///
    /// # Errors
    /// When this machine has no fio, or the node cannot be written to.
    pub async fn bring(ctx: &Ctx, node: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let loader = gather(dir.path())?;
        ctx.on_node(node, &["mkdir", "-p", HOME]).await?;
        let from = format!("{}/.", dir.path().display());
        ctx.docker(&["cp", &from, &format!("{node}:{HOME}")])
            .await?;
        Ok(Self {
            ctx: ctx.clone(),
            node: node.to_owned(),
            loader: format!("{HOME}/{loader}"),
        })
    }

    /// Writes a file of this size, so that reads find data.
    ///
    /// # Errors
    /// fio's.
    pub async fn lay_out(&self, file: &str, mib: u64) -> Result<()> {
        let arguments = [
            "--name=layout".to_owned(),
            format!("--filename={file}"),
            format!("--size={mib}M"),
            "--rw=write".to_owned(),
            "--bs=1M".to_owned(),
            "--end_fsync=1".to_owned(),
        ];
        self.run(&arguments).await?;
        Ok(())
    }

    /// Runs a job on a file that is laid out; its figure.
    ///
    /// # Errors
    /// fio's.
    pub async fn measure(&self, job: Job, file: &str, mib: u64, seconds: u64) -> Result<f64> {
        let said = self.run(&job.of(file, mib, seconds)).await?;
        job.figure(&said)
            .with_context(|| format!("{} on {file}", job.title))
    }

    async fn run(&self, arguments: &[String]) -> Result<String> {
        let program = format!("{HOME}/fio");
        let mut line = vec![self.loader.as_str(), "--library-path", HOME, &program];
        line.extend(arguments.iter().map(String::as_str));
        self.ctx.on_node(&self.node, &line).await
    }

    /// Takes it off the node again.
    ///
    /// # Errors
    /// When the node cannot be written to.
    pub async fn remove(&self) -> Result<()> {
        self.ctx.on_node(&self.node, &["rm", "-rf", HOME]).await?;
        Ok(())
    }
}

/// Whether this machine has fio.
///
/// # Errors
/// What to do when it has not.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("fio"))
        .find(|file| file.is_file());
    found.context(
        "fio is missing: install Debian's package fio, or leave it out with --only bursts,memory",
    )
}

/// Copies fio and its libraries into a directory; the name of their loader there.
fn gather(dir: &Path) -> Result<String> {
    let program = find()?;
    let said = Command::new("ldd")
        .arg(&program)
        .output()
        .context("cannot start ldd")?;
    ensure!(
        said.status.success(),
        "ldd cannot tell what fio is linked with"
    );
    let libraries = libraries(&String::from_utf8_lossy(&said.stdout));
    let copy = |from: &Path| {
        let name = from.file_name().context("a library has a name")?;
        std::fs::copy(from, dir.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(&program)?;
    let mut loader = None;
    for library in &libraries {
        copy(Path::new(library))?;
        let name = library.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-") || name.starts_with("ld64") {
            loader = Some(name.to_owned());
        }
    }
    match loader {
        Some(loader) => Ok(loader),
        None => bail!(
            "{} names no loader: is it linked statically?",
            program.display()
        ),
    }
}

/// The files that `ldd` names.
fn libraries(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = path.split_whitespace().next()?;
        path.starts_with('/').then(|| path.to_owned())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        assert_eq!(
            libraries(text),
            ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }

    #[test]
    fn figures_are_those_of_the_jobs_side() {
        let json = r#"note: both
{"jobs":[{"read":{"bw_bytes":1048576,"iops":7},"write":{"bw_bytes":2097152,"iops":9}}]}"#;
        let values: Vec<_> = JOBS.iter().map(|j| j.figure(json).unwrap()).collect();
        assert_eq!(values, [1.0, 2.0, 7.0, 9.0, 9.0]);
        let idle = json.replace("\"iops\":7", "\"iops\":0");
        assert!(JOBS[2].figure(&idle).is_err() && JOBS[0].figure("no").is_err());
    }

    #[test]
    fn jobs_end_after_their_time() {
        for job in JOBS {
            let line = job.of("/f", 64, 5).join(" ");
            assert!(line.contains("--runtime=5") && line.contains("--time_based"));
        }
    }
}
