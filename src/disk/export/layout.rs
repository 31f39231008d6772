//! Which clusters of a disk hold something.

use crate::disk::qcow2::{Content, Error};

/// Clusters of a region: what one level-2 table of a qcow2 describes, half a gigabyte.
const REGION: u64 = 8192;

/// What is known of a disk before it is read. Formats whose tables stand before their data need it.
///
/// A bit for each cluster, and nothing for a region that is empty: 4 MiB at most for 2 TiB.
pub(super) struct Layout {
    size: u64,
    regions: Vec<Option<Box<[u64; 128]>>>,
    clusters: u64,
}

impl Layout {
    /// Looks through a disk's tables.
    pub(super) fn of(content: &mut Content) -> Result<Self, Error> {
        let mut layout = Self { size: content.size(), regions: Vec::new(), clusters: 0 };
        let mut offset = 0;
        while let Some(data) = content.next_data(offset)? {
            let (region, word, bit) = place(data / Content::CLUSTER);
            if layout.regions.len() <= region {
                layout.regions.resize(region + 1, None);
            }
            layout.regions[region].get_or_insert_with(|| Box::new([0; 128]))[word] |= bit;
            layout.clusters += 1;
            offset = data + Content::CLUSTER;
        }
        Ok(layout)
    }

    /// Size that a guest sees, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the clusters that may hold something.
    pub(super) fn data(&self) -> u64 {
        self.clusters * Content::CLUSTER
    }

    /// Whether there may be something in a block. Blocks are whole clusters and divide a region; the last may lead behind
    /// the disk's end.
    pub(super) fn has_data(&self, offset: u64, length: u64) -> bool {
        let (region, ..) = place(offset / Content::CLUSTER);
        let Some(words) = self.regions.get(region).and_then(Option::as_ref) else { return false };
        let mut clusters = offset / Content::CLUSTER..(offset + length).div_ceil(Content::CLUSTER);
        clusters.any(|cluster| {
            let (_, word, bit) = place(cluster);
            words[word] & bit != 0
        })
    }
}

fn place(cluster: u64) -> (usize, usize, u64) {
    let region = usize::try_from(cluster / REGION).unwrap_or(usize::MAX);
    let word = usize::try_from(cluster % REGION / 64).unwrap_or(0);
    (region, word, 1 << (cluster % 64))
}
