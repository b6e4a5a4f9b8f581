//! The demo: one set, from nothing to three disks and back, each step with what
//! it proves.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use berth_api::Pool;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use crate::{
    ctx::{Ctx, node_of, uid_of},
    install, picture,
    steps::{data, network},
    wait::{check, until},
};

/// Namespace of the demo.
pub const NAMESPACE: &str = "berth-demo";
const PODS: [&str; 3] = ["kubia-0", "kubia-1", "kubia-2"];

/// Prints the story as it goes.
pub struct Story<'a> {
    ctx: &'a Ctx,
    step: usize,
}

impl<'a> Story<'a> {
    /// A story on a cluster that has Berth and pools.
    pub fn new(ctx: &'a Ctx) -> Self {
        Self { ctx, step: 0 }
    }

    fn title(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. {text}", self.step);
    }

    /// Three replicas, three nodes, three disks.
    pub async fn three_replicas(&mut self) -> Result<()> {
        self.title("Three replicas with a claim each, no two on one node");
        let manifest = install::checkout("deploy/examples/kubia.yaml");
        let manifest = manifest
            .to_str()
            .context("the checkout's path is not UTF-8")?;
        command("kubectl apply -f deploy/examples/kubia.yaml");
        self.ctx
            .kubectl
            .run(&["-n", NAMESPACE, "apply", "-f", manifest])
            .await?;
        let pods = self.ctx.wait_ready(NAMESPACE, &PODS).await?;
        let nodes: BTreeSet<_> = pods.values().map(node_of).collect();
        ensure!(nodes.len() == 3, "three replicas are on {nodes:?}");
        self.show(&["get", "oset,pods,pvc", "-o", "wide"]).await?;
        self.pools_told(PODS.len()).await?;
        self.show(&["get", "bpool"]).await?;
        self.show(&["get", "bvol", "-o", "wide"]).await?;
        proof("each replica has its own name, node, claim, volume, pool and host path");
        Ok(())
    }

    /// Figures of pools are told a moment after the volumes are there.
    async fn pools_told(&self, volumes: usize) -> Result<()> {
        let pools: Api<Pool> = Api::all(self.ctx.client.clone());
        until(
            &format!("the pools to count {volumes} volumes"),
            async || {
                let all = pools.list(&ListParams::default()).await?;
                let statuses = all.items.into_iter().filter_map(|pool| pool.status);
                let told: i64 = statuses.map(|status| status.volumes).sum();
                check(told >= volumes as i64, || format!("they count {told}"))
            },
        )
        .await
    }

    /// DNS names of the peers.
    pub async fn peers(&mut self) -> Result<()> {
        self.title("Peers find one another by name");
        network::start_tools(self.ctx, NAMESPACE).await?;
        let pods = self.ctx.wait_ready(NAMESPACE, &PODS).await?;
        let pods: Vec<_> = pods.values().collect();
        command("dig +short SRV kubia.berth-demo.svc.cluster.local");
        print!(
            "{}",
            network::expect_records(self.ctx, NAMESPACE, "kubia", &pods).await?
        );
        proof("DNS has an A and an SRV record for each ordinal");
        Ok(())
    }

    /// A write through the pod proxy.
    pub async fn write(&mut self) -> Result<()> {
        self.title("Each replica stores what is POSTed to it");
        for pod in PODS {
            let text = format!("the data of {pod}");
            command(&format!("POST {text:?} through the proxy of {pod}"));
            let port = format!("{pod}:8080");
            let answer = self.ctx.pod_proxy("POST", NAMESPACE, &port, &text).await?;
            println!("   {}", answer.trim());
        }
        self.expect_data().await
    }

    async fn expect_data(&self) -> Result<()> {
        for pod in PODS {
            let answer = self
                .ctx
                .pod_proxy("GET", NAMESPACE, &format!("{pod}:8080"), "")
                .await?;
            ensure!(
                answer.contains(pod) && answer.contains(&format!("the data of {pod}")),
                "{pod} answers {answer:?}"
            );
            println!("   {}", answer.trim().replace('\n', " | "));
        }
        proof("each replica answers with its name and its own data");
        Ok(())
    }

    /// A deleted pod returns.
    pub async fn delete_pod(&mut self) -> Result<()> {
        self.title("A pod is deleted: the same name returns with the same data");
        let before = self.ctx.pods(NAMESPACE).get("kubia-1").await?;
        command("kubectl delete pod kubia-1");
        self.ctx
            .pods(NAMESPACE)
            .delete("kubia-1", &DeleteParams::default())
            .await?;
        data::wait_replaced(self.ctx, NAMESPACE, "kubia-1", &uid_of(&before)).await?;
        self.expect_data().await
    }

    /// 3 -> 1 -> 3.
    pub async fn scale(&mut self) -> Result<()> {
        self.title("Scaled from 3 to 1 and back: claims and data are kept");
        for (replicas, pods) in [(1, &PODS[..1]), (3, &PODS[..])] {
            command(&format!("kubectl scale oset/kubia --replicas={replicas}"));
            self.ctx.scale(NAMESPACE, "oset/kubia", replicas).await?;
            if replicas == 1 {
                for gone in ["kubia-1", "kubia-2"] {
                    let what = format!("pod/{gone}");
                    let args = [
                        "-n",
                        NAMESPACE,
                        "wait",
                        "--for=delete",
                        &what,
                        "--timeout=120s",
                    ];
                    self.ctx.kubectl.run(&args).await?;
                }
                self.show(&["get", "pvc"]).await?;
            }
            self.ctx.wait_ready(NAMESPACE, pods).await?;
        }
        self.expect_data().await
    }

    /// A node is killed and returns.
    pub async fn node_crash(&mut self, cluster: &berth_cluster::Cluster) -> Result<()> {
        self.title("A node crashes and returns: its replica's data is there");
        let pod = self.ctx.pods(NAMESPACE).get("kubia-2").await?;
        let node = node_of(&pod);
        command(&format!(
            "cargo cluster kill-node {node} && cargo cluster start-node {node}"
        ));
        crate::steps::disruption::crash_and_return(self.ctx, cluster, &node).await?;
        self.ctx.wait_ready(NAMESPACE, &PODS).await?;
        self.expect_data().await
    }

    /// What a person sees on a node.
    pub async fn on_the_node(&mut self) -> Result<()> {
        self.title("On the node, without the API server");
        let pod = self.ctx.pods(NAMESPACE).get("kubia-0").await?;
        let node = node_of(&pod);
        for words in [&["pools"][..], &["volumes"], &["check"]] {
            command(&format!("{node}# berth-agent {}", words.join(" ")));
            print!("{}", self.ctx.agent(&node, words).await?);
        }
        proof("pools, volumes and their host paths are there to be looked at by hand");
        Ok(())
    }

    /// Nodes x pools x ordinals.
    pub async fn picture(&mut self) -> Result<()> {
        self.title("The whole in one picture");
        print!("{}", picture::draw(&picture::read(self.ctx).await?));
        Ok(())
    }

    async fn show(&self, args: &[&str]) -> Result<()> {
        command(&format!("kubectl {}", args.join(" ")));
        let mut all = vec!["-n", NAMESPACE];
        all.extend(args);
        print!("{}", self.ctx.kubectl.run(&all).await?);
        Ok(())
    }
}

fn command(line: &str) {
    println!("   $ {line}");
}

fn proof(line: &str) {
    println!("   ✓ {line}");
}
