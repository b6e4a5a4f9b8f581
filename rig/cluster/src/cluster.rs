//! A cluster: made, found again, and taken away.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::components::{self, Go, KUBERNETES_PROGRAMS};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::names::Instance;
use crate::options::{Options, Record};
use crate::paths::{self, Layout, read, write};
use crate::run::Run;
use crate::{builder, kind_config, limits, node_image, preflight, progress, teardown};

/// A running cluster, held by this process: nobody else can take it down or
/// change it until this value is dropped. Dropping it leaves the cluster running.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) instance: Instance,
    pub(crate) layout: Layout,
    pub(crate) engine: Engine,
    pub(crate) record: Record,
    pub(crate) programs: Programs,
    _lock: Option<Lock>,
}

/// Where the programs that the rig itself calls are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) kind: PathBuf,
    pub(crate) kubectl: PathBuf,
}

impl Programs {
    fn get(go: &Go) -> Result<Self> {
        let kubernetes = KUBERNETES_PROGRAMS.get(go)?;
        let kubectl = kubernetes.join("kubectl");
        if !kubectl.exists() {
            let linked = std::os::unix::fs::symlink("kubernetes", &kubectl);
            if let Err(e) = linked
                && e.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(Error::io("cannot link", kubectl)(e));
            }
        }
        Ok(Self {
            kind: components::KIND.get(go)?.join("kind"),
            kubectl,
        })
    }
}

impl Cluster {
    /// A name derived from the checkout's, so that a kept demo and a test run of one
    /// checkout live side by side: `role` is a letter or two.
    ///
    /// # Errors
    /// When the current directory is not in a checkout.
    pub fn checkout_name(role: &str) -> Result<String> {
        Ok(format!("{}-{role}", instance(None)?.id()))
    }

    /// Makes a cluster and waits until all its nodes are ready.
    ///
    /// Leftovers of a killed run under the same name are removed first.
    ///
    /// # Errors
    /// [`Error::AlreadyUp`] if it runs already, [`Error::Held`] if another process
    /// works on it, [`Error::Preflight`] if the machine lacks something.
    pub fn up(options: &Options) -> Result<Self> {
        crate::role::check()?;
        let instance = instance(options.name.as_deref())?;
        let layout = Layout::of(&instance);
        preflight::require(&preflight::judge(&preflight::look()))?;
        let lock = hold(&instance)?;
        if layout.root().exists() {
            if is_running(&layout) {
                return Err(Error::AlreadyUp(instance.id().to_owned()));
            }
            progress::say(format!(
                "removing what is left of instance {}",
                instance.id()
            ));
        }
        teardown::instance(&instance)?;
        let go = Go::here()?;
        let kind = engine::choose_here();
        let programs = Programs::get(&go)?;
        let image = node_image::choose(kind, &go)?;
        let workers = (1..=options.workers).map(|n| instance.worker(n)).collect();
        let mut cluster = Self {
            engine: Engine::of(kind, &layout),
            record: Record {
                options: options.clone(),
                engine: kind,
                image,
                workers,
                nodes: Vec::new(),
                ready: false,
            },
            instance,
            layout,
            programs,
            _lock: Some(lock),
        };
        cluster.make(&go)?;
        Ok(cluster)
    }

    /// Takes hold of a cluster that runs; `None` is the checkout's own.
    pub fn attach(name: Option<&str>) -> Result<Self> {
        let found = instance(name)?;
        let lock = hold(&found)?;
        Self::open(found, Some(lock))
    }

    /// Looks at a cluster that runs without holding it: for reading only.
    pub fn view(name: Option<&str>) -> Result<Self> {
        Self::open(instance(name)?, None)
    }

    /// Removes an instance with all that belongs to it; `None` is the checkout's own.
    pub fn down(name: Option<&str>) -> Result<()> {
        crate::role::check()?;
        let instance = instance(name)?;
        let lock = hold(&instance)?;
        teardown::instance(&instance)?;
        drop(lock);
        forget_lock(&instance)?;
        // A run that was killed while it built images left a builder.
        builder::clean_up()?;
        limits::restore()
    }

    /// Removes every cluster, and what runs left that were killed before they had one.
    pub fn down_all() -> Result<()> {
        crate::role::check()?;
        for name in crate::instances()? {
            Self::down(Some(&name))?;
        }
        builder::clean_up()?;
        limits::restore()
    }

    /// Removes this cluster with all that belongs to it.
    pub fn remove(self) -> Result<()> {
        teardown::instance(&self.instance)?;
        forget_lock(&self.instance)?;
        limits::restore()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The instance's id.
    pub fn name(&self) -> &str {
        self.instance.id()
    }

    /// The workers' node names, which are also their containers' names.
    pub fn workers(&self) -> Vec<String> {
        self.record.workers.clone()
    }

    /// The control plane's node name.
    pub fn control_plane(&self) -> String {
        self.instance.control_plane()
    }

    /// The whole name of a node of this cluster, from it or from its end, such as `worker2`.
    pub fn node_name(&self, node: &str) -> Result<String> {
        self.known(node)
    }

    /// The log of the API server's audit: one JSON event a line for each write, but for
    /// those of kubelets' heartbeats and of leases. `None` unless [`Options::audit`].
    pub fn audit_log(&self) -> Option<PathBuf> {
        let dir = self.layout.root().join("audit");
        let audited = self.record.options.audit;
        audited.then(|| dir.join(kind_config::AUDIT_LOG))
    }

    /// Where this cluster's logs are collected.
    pub fn log_dir(&self) -> PathBuf {
        self.layout.root().join("logs")
    }

    /// What the cluster was made with.
    pub fn options(&self) -> &Options {
        &self.record.options
    }

    /// The environment in which `docker` and `kind` mean this cluster's engine.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.engine.env().to_vec();
        env.push((
            "KIND_EXPERIMENTAL_DOCKER_NETWORK".to_owned(),
            self.instance.network(),
        ));
        env.push((
            "KUBECONFIG".to_owned(),
            self.kubeconfig().display().to_string(),
        ));
        env
    }

    /// The kubectl that was built with the cluster.
    pub fn kubectl_path(&self) -> &Path {
        &self.programs.kubectl
    }

    /// Runs kubectl, demands success, and returns what it printed.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        self.kubectl_run().args(args).stdout()
    }

    /// Runs kubectl with `input` on its standard input, demands success, and returns what it printed.
    pub fn kubectl_feed<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<String> {
        self.kubectl_run().args(args).feed(input.as_bytes())
    }

    /// Runs a program in a node and returns its output, however it ended.
    pub fn node_exec<S: AsRef<std::ffi::OsStr>>(
        &self,
        node: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        self.engine
            .docker(["exec", self.known(node)?.as_str()])
            .args(args)
            .output()
    }

    /// Runs a shell script in a node, demands success, and returns what it printed.
    pub fn node_script(&self, node: &str, script: &str) -> Result<String> {
        let node = self.known(node)?;
        self.engine
            .docker(["exec", &node, "sh", "-ec", script])
            .stdout()
    }

    /// Loads an image archive (as `docker save` writes it) into every node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        progress::step("loading the image into the nodes", || {
            Run::new(&self.programs.kind)
                .args(["load", "image-archive", "--name", &self.instance.cluster()])
                .arg(archive)
                .envs(&self.env())
                .stdout()
                .map(drop)
        })
    }

    pub(crate) fn kubectl_run(&self) -> Run {
        Run::new(&self.programs.kubectl).env("KUBECONFIG", self.kubeconfig())
    }

    /// The node's name, if this cluster has it; `worker2` is short for the whole name.
    pub(crate) fn known(&self, node: &str) -> Result<String> {
        let long = format!("{}-{node}", self.instance.cluster());
        let mut all = self.workers();
        all.push(self.control_plane());
        all.iter()
            .find(|n| *n == node || **n == long)
            .cloned()
            .ok_or_else(|| {
                Error::Unexpected(format!("{node} is none of the nodes {}", all.join(", ")))
            })
    }

    pub(crate) fn save_record(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.record)
            .map_err(|e| Error::Unexpected(format!("cannot write the cluster's record: {e}")))?;
        write(&self.layout.record(), text)
    }

    fn open(instance: Instance, lock: Option<Lock>) -> Result<Self> {
        let layout = Layout::of(&instance);
        let record = load_record(&layout).filter(|r| r.ready);
        let Some(record) = record.filter(|_| is_running(&layout)) else {
            return Err(Error::NotUp(instance.id().to_owned()));
        };
        Ok(Self {
            engine: Engine::of(record.engine, &layout),
            programs: Programs::get(&Go::here()?)?,
            instance,
            layout,
            record,
            _lock: lock,
        })
    }
}

/// Builds everything that a cluster needs, so that [`Cluster::up`] is quick.
pub fn build_all() -> Result<()> {
    crate::role::check()?;
    let go = Go::here()?;
    Programs::get(&go)?;
    node_image::choose(engine::choose_here(), &go).map(drop)
}

/// The instance of a name, or the checkout's own.
pub(crate) fn instance(name: Option<&str>) -> Result<Instance> {
    name.map_or_else(paths::default_instance, Instance::named)
}

/// Takes an instance's lock, or names who has it.
fn hold(instance: &Instance) -> Result<Lock> {
    Lock::try_take(&Layout::of(instance).lock())?.map_err(|holder| Error::Held {
        instance: instance.id().to_owned(),
        holder,
    })
}

fn forget_lock(instance: &Instance) -> Result<()> {
    let path = Layout::of(instance).lock();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path)(e))
        }
        _ => Ok(()),
    }
}

fn load_record(layout: &Layout) -> Option<Record> {
    serde_json::from_str(&read(&layout.record()).ok()?).ok()
}

/// Whether an instance was made to its end and its engine answers.
fn is_running(layout: &Layout) -> bool {
    load_record(layout).is_some_and(|r| r.ready && Engine::of(r.engine, layout).answers())
}
