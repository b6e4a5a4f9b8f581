//! The command line of the cluster rig.

fn main() -> anyhow::Result<()> {
    berth_cluster::take_role();
    let name = std::env::args().nth(2);
    match std::env::args().nth(1).as_deref() {
        Some("up") => {
            let options = berth_cluster::Options {
                name,
                ..Default::default()
            };
            let cluster = berth_cluster::Cluster::up(&options)?;
            println!("{}", cluster.status()?);
        }
        _ => berth_cluster::Cluster::down(name.as_deref())?,
    }
    Ok(())
}
