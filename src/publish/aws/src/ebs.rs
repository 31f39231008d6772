//! Snapshots, block by block: the "EBS direct APIs".

use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use bytes::Bytes;

use crate::{Error, Region, Tags};

/// Bytes of a block.
pub const BLOCK: usize = 512 << 10;
/// The longest that AWS keeps an unfinished snapshot to which nothing is written, in minutes.
const TIMEOUT: i32 = 4320;

/// A snapshot to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'a> {
    /// Its size in GiB.
    pub gib: u64,
    /// A finished snapshot whose blocks it has where none is written. It is encrypted as that one is.
    pub parent: Option<&'a str>,
    /// What it is, in at most 255 characters.
    pub description: &'a str,
    /// Its labels.
    pub tags: &'a Tags,
    /// The key to encrypt it with.
    pub kms_key: Option<&'a str>,
    /// What makes a repeated request one request.
    pub token: &'a str,
}

impl Region {
    /// Begins a snapshot. Returns its identifier.
    pub async fn start_snapshot(&self, new: NewSnapshot<'_>) -> Result<String, Error> {
        let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
        let request = self
            .ebs
            .start_snapshot()
            .volume_size(new.gib.try_into().unwrap_or(i64::MAX))
            .set_parent_snapshot_id(new.parent.map(str::to_owned))
            .description(new.description)
            .set_tags(Some(new.tags.iter().map(tag).collect()))
            .set_encrypted(new.kms_key.map(|_| true))
            .set_kms_key_arn(new.kms_key.map(str::to_owned))
            .client_token(new.token)
            .timeout(TIMEOUT);
        let answer = request.send().await.map_err(|error| Error::of("EBS", "StartSnapshot", error))?;
        Error::expect("EBS", "StartSnapshot", answer.snapshot_id)
    }

    /// Writes a block of a snapshot that is not finished. `sha256` is that of `data`, in Base64.
    pub async fn put_block(&self, snapshot: &str, index: u32, data: Bytes, sha256: &str) -> Result<(), Error> {
        let request = self
            .ebs
            .put_snapshot_block()
            .snapshot_id(snapshot)
            .block_index(index.try_into().unwrap_or(i32::MAX))
            .data_length(data.len().try_into().unwrap_or(i32::MAX))
            .checksum(sha256)
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .block_data(ByteStream::from(data));
        request.send().await.map(drop).map_err(|error| Error::of("EBS", "PutSnapshotBlock", error))
    }

    /// Ends a snapshot of `blocks` written blocks. `sha256` is that of the blocks' digests, in the order of their indices, in
    /// Base64.
    pub async fn complete_snapshot(&self, snapshot: &str, blocks: u32, sha256: &str) -> Result<(), Error> {
        let request = self
            .ebs
            .complete_snapshot()
            .snapshot_id(snapshot)
            .changed_blocks_count(blocks.try_into().unwrap_or(i32::MAX))
            .checksum(sha256)
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear);
        request.send().await.map(drop).map_err(|error| Error::of("EBS", "CompleteSnapshot", error))
    }
}
