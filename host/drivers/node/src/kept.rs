//! What a node keeps in its data directory, opened: everything that can be refused
//! about a directory is refused here, before the node speaks to anyone.

use openraft_rt_tokio::TokioRuntime;
use quorate_storage::{
    Blobs, DataDir, Directories, DirectoryId, Identity, Log, LogOptions, Snapshots, begin_life,
};
use quorate_transport::TransportOptions;
use quorate_types::{Era, Faults, NodeId};

use crate::config::NodeConfig;
use crate::disk::FileDisk;
use crate::node::{StartError, transport_options};
use crate::repair;
use crate::secrets::entropy;

/// The rooms of a data directory.
pub(crate) struct Kept {
    /// The directory's own id.
    pub(crate) directory: DirectoryId,
    /// Which life of the cluster it is a part of, if that is known.
    pub(crate) era: Option<Era>,
    /// Which of its lives this is.
    pub(crate) life: u64,
    pub(crate) disk: FileDisk,
    /// Which directories the others vote from.
    pub(crate) directories: Directories<FileDisk>,
    pub(crate) log: Log<TokioRuntime, FileDisk>,
    pub(crate) snapshots: Snapshots<FileDisk>,
    pub(crate) blobs: Blobs<FileDisk>,
}

impl Kept {
    /// Opens this node's directory, or makes it.
    pub(crate) async fn open(
        config: &NodeConfig,
        key: &[u8; 32],
        faults: &Faults,
    ) -> Result<Self, StartError> {
        let identity = Identity {
            cluster: config.cluster.id.clone(),
            node: config.id(),
            peer: quorate_transport::peer_id_of(key),
            directory: DirectoryId(entropy()),
            // One that joins is told.
            era: (!config.node.joins).then_some(Era::FIRST),
        };
        let transport = transport_options(config, *key);
        Self::open_as(config, transport, identity, faults)
            .await
            .map_err(|source| StartError::DataDir { dir: config.node.data_dir.clone(), source })
    }

    async fn open_as(
        config: &NodeConfig,
        transport: TransportOptions,
        identity: Identity,
        faults: &Faults,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let disk = FileDisk::open(&config.node.data_dir)?;
        let data_dir = DataDir::open_or_create(&disk, identity).await?;
        let &Identity { directory, era, .. } = data_dir.identity();
        let directories = Directories::open(disk.clone()).await?;
        let life = begin_life(&disk).await?;
        let options = LogOptions::new(directory);
        let snapshots = Snapshots::open(disk.clone()).await?;
        let (log, recovered) = match Log::open(disk.clone(), options.clone(), faults).await {
            Ok(opened) => opened,
            Err(damage) => {
                let voters = config.members.iter().map(|member| NodeId(member.id)).collect();
                let (options, snapshots) = (options.clone(), snapshots.clone());
                let (own, again) = (disk.clone(), options.clone());
                repair::run(transport, &voters, own, options, snapshots, damage).await?;
                Log::open(disk.clone(), again, faults).await?
            }
        };
        tracing::info!(
            %directory,
            era = era.map(|era| era.to_string()),
            life,
            created = data_dir.created(),
            closed_in_order = recovered.sealed,
            torn_bytes = recovered.torn_bytes,
            "data directory opened"
        );
        let blobs = Blobs::open(disk.clone()).await?;
        Ok(Self { directory, era, life, disk, directories, log, snapshots, blobs })
    }
}
