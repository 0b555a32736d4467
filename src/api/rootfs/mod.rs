//! File systems made of the files of an image, by the tools of each file system.

mod beside;
mod debugfs;
mod export;
mod ext4;
mod tool;
