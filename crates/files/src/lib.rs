//! Outputs that are whole or absent: [`OutputFile`] for files, [`OutputFolder`] for folders.
//!
//! Either is written under a temporary name in the folder of its target, synced, and put in place in one call. A
//! process that is killed leaves the target as it was, and a temporary that the next output in that folder clears
//! away: the kernel tells who is dead, since a writer holds a lock on its temporary.
//!
//! Devices, pipes and descriptors (`/dev/stdout`) are written to; of a symbolic link the file or folder that it names is
//! replaced, and the link stays.

mod file;
mod folder;
mod place;
mod temporary;

pub use file::{OutputFile, write};
pub use folder::{OutputFolder, recover};
pub use place::{is_stream, same};
pub use temporary::clear;
