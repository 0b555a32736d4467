//! What a layer's files must be, computed in memory.
//!
//! The model resolves every path anew from the root and keeps nothing between entries, so it
//! cannot have what a cache of open directories can have: a handle of a directory that its
//! path no longer leads to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::tar::Entry;
use super::tree::{BLOCK_DEVICE, CHAR_DEVICE, FIFO, WHITEOUT, directory, file, symlink};

/// As many symlinks as Linux follows in one path (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// One entry that a layer's archive may hold.
#[derive(Debug, Clone)]
pub enum Op {
    Dir(String),
    File(String, String),
    Symlink(String, String),
    Hardlink(String, String),
    Whiteout(String),
    Opaque(String),
    Fifo(String),
    CharDevice(String),
    BlockDevice(String),
}

/// The major and minor numbers of all devices.
const DEVICE: (u32, u32) = (1, 3);

impl Op {
    /// The entry as the archive has it.
    pub fn entry(&self) -> Entry {
        match self {
            Self::Dir(path) => Entry::dir(format!("{path}/")),
            Self::File(path, data) => Entry::file(path, data),
            Self::Symlink(path, target) => Entry::symlink(path, target),
            Self::Hardlink(path, target) => Entry::hardlink(path, target),
            Self::Whiteout(path) => Entry::whiteout(path),
            Self::Opaque(path) => Entry::opaque(path),
            Self::Fifo(path) => Entry::fifo(path),
            Self::CharDevice(path) => Entry::char_device(path, DEVICE.0, DEVICE.1),
            Self::BlockDevice(path) => Entry::block_device(path, DEVICE.0, DEVICE.1),
        }
    }
}

/// The entry must fail the layer.
#[derive(Debug, PartialEq)]
pub struct Refused;

#[derive(Debug, Clone)]
enum Node {
    Dir {
        children: BTreeMap<String, usize>,
        opaque: bool,
    },
    File(String),
    Symlink(String),
    Whiteout,
    /// A fifo or a device.
    Special(&'static str),
}

/// Why a path leads to no directory.
enum Failure {
    /// A name is missing, or is not a directory.
    Absent,
    /// Too many symlinks.
    Loop,
}

/// A directory, as the names and nodes on the way to it; the root has none.
type Place = Vec<(String, usize)>;

/// A layer's files.
#[derive(Debug, Clone)]
pub struct Model {
    /// Hardlinks have the same index.
    nodes: Vec<Node>,
    hidden: Vec<Hidden>,
    /// Directories with an entry of their own, symlinks resolved.
    named: HashSet<Vec<String>>,
}

/// A whiteout or an opaque mark, and its place when it came, symlinks resolved.
#[derive(Debug, Clone)]
struct Hidden {
    path: Vec<String>,
    whiteout: bool,
}

impl Model {
    pub fn new() -> Self {
        Self { nodes: vec![empty_dir()], hidden: Vec::new(), named: HashSet::new() }
    }

    /// Applies one entry. After an error the model is of no use.
    pub fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        match op {
            Op::Dir(path) => {
                let (place, last) = self.parent_of(path)?;
                self.named.insert(names(&place, Some(&last)));
                match self.child(id(&place), &last) {
                    Some(old) if matches!(self.nodes[old], Node::Dir { .. }) => {}
                    _ => self.put(&place, last, empty_dir()),
                }
            }
            Op::File(path, data) => {
                let (place, last) = self.parent_of(path)?;
                self.put(&place, last, Node::File(data.clone()));
            }
            Op::Symlink(path, target) => {
                let (place, last) = self.parent_of(path)?;
                self.put(&place, last, Node::Symlink(target.clone()));
            }
            Op::Hardlink(path, target) => self.hardlink(path, target)?,
            Op::Fifo(path) => self.put_special(path, FIFO)?,
            Op::CharDevice(path) => self.put_special(path, CHAR_DEVICE)?,
            Op::BlockDevice(path) => self.put_special(path, BLOCK_DEVICE)?,
            Op::Whiteout(path) => {
                let (place, last) = self.parent_of(path)?;
                let path = names(&place, Some(&last));
                self.hidden.push(Hidden { path, whiteout: true });
                if self.child(id(&place), &last).is_none() {
                    self.put(&place, last, Node::Whiteout);
                }
            }
            Op::Opaque(path) => {
                let place = self.ensure(&parts(path))?;
                self.hidden.push(Hidden { path: names(&place, None), whiteout: false });
            }
        }
        Ok(())
    }

    fn put_special(&mut self, path: &str, kind: &'static str) -> Result<(), Refused> {
        let (place, last) = self.parent_of(path)?;
        self.put(&place, last, Node::Special(kind));
        Ok(())
    }

    /// Marks what whiteouts of this layer hide in lower layers, after the last entry.
    pub fn finish(&mut self) {
        let mut hidden = std::mem::take(&mut self.hidden);
        // Parents before what is below them, and a whiteout before an opaque mark.
        hidden.sort_by_key(|hidden| (hidden.path.clone(), !hidden.whiteout));
        let mut covered: Vec<Vec<String>> = Vec::new();
        for Hidden { path, whiteout } in hidden {
            if covered.iter().any(|above| path.starts_with(above)) {
                continue;
            }
            let Some((last, parents)) = path.split_last() else {
                self.mark_opaque(0);
                continue;
            };
            let parent = parents.iter().try_fold(0, |at, name| {
                let child = self.child(at, name)?;
                matches!(self.nodes[child], Node::Dir { .. }).then_some(child)
            });
            let Some(parent) = parent else { continue };
            let place = vec![(String::new(), parent)];
            match self.child(parent, last) {
                None if whiteout => self.put(&place, last.clone(), Node::Whiteout),
                Some(dir) if whiteout && matches!(self.nodes[dir], Node::Dir { .. }) => {
                    if self.prune(dir, &path) {
                        self.mark_opaque(dir);
                    } else {
                        self.put(&place, last.clone(), Node::Whiteout);
                    }
                    covered.push(path);
                }
                Some(child) => self.mark_opaque(child),
                None => {}
            }
        }
    }

    /// Removes whiteouts and what only they implied; whether anything is left.
    fn prune(&mut self, dir: usize, path: &[String]) -> bool {
        let mut holds = self.named.contains(path);
        let Node::Dir { children, .. } = &self.nodes[dir] else { return true };
        for (name, child) in children.clone() {
            let below = [path, std::slice::from_ref(&name)].concat();
            if matches!(self.nodes[child], Node::Whiteout) || !self.prune(child, &below) {
                self.remove(dir, &name);
            } else {
                holds = true;
            }
        }
        holds
    }

    fn mark_opaque(&mut self, at: usize) {
        if let Node::Dir { opaque, .. } = &mut self.nodes[at] {
            *opaque = true;
        }
    }

    fn hardlink(&mut self, path: &str, target: &str) -> Result<(), Refused> {
        let (place, last) = self.parent_of(path)?;
        let (from, to) = (parts(target), parts(path));
        if from == to {
            return Err(Refused);
        }
        let (name, parents) = from.split_last().ok_or(Refused)?;
        let parent = self.walk(parents).map_err(|_| Refused)?;
        let linked = self.child(id(&parent), name).ok_or(Refused)?;
        if matches!(self.nodes[linked], Node::Dir { .. } | Node::Whiteout) {
            return Err(Refused);
        }
        self.remove(id(&place), &last);
        // The target may have been below what was replaced.
        self.child(id(&parent), name).ok_or(Refused)?;
        self.children(id(&place)).insert(last, linked);
        Ok(())
    }

    /// The directory that the entry stands in, made where it is missing, and its name.
    fn parent_of(&mut self, path: &str) -> Result<(Place, String), Refused> {
        let parts = parts(path);
        let (last, parents) = parts.split_last().ok_or(Refused)?;
        Ok((self.ensure(parents)?, last.clone()))
    }

    fn ensure(&mut self, path: &[String]) -> Result<Place, Refused> {
        match self.walk(path) {
            Ok(place) => return Ok(place),
            Err(Failure::Loop) => return Err(Refused),
            Err(Failure::Absent) => {}
        }
        let (last, parents) = path.split_last().ok_or(Refused)?;
        let mut place = self.ensure(parents)?;
        match self.child(id(&place), last) {
            Some(old) if !matches!(self.nodes[old], Node::Whiteout) => return Err(Refused),
            _ => self.put(&place, last.clone(), empty_dir()),
        }
        place.push((last.clone(), self.nodes.len() - 1));
        Ok(place)
    }

    /// Resolves a path as in a chroot: `/` and `..` never leave the root.
    fn walk(&self, path: &[String]) -> Result<Place, Failure> {
        let mut todo: Vec<String> = path.iter().rev().cloned().collect();
        let mut place = Place::new();
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    place.pop();
                    continue;
                }
                _ => {}
            }
            let child = self.child(id(&place), &name).ok_or(Failure::Absent)?;
            match &self.nodes[child] {
                Node::Dir { .. } => place.push((name, child)),
                Node::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(Failure::Loop);
                    }
                    if target.starts_with('/') {
                        place.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                Node::File(_) | Node::Whiteout | Node::Special(_) => return Err(Failure::Absent),
            }
        }
        Ok(place)
    }

    fn child(&self, dir: usize, name: &str) -> Option<usize> {
        match &self.nodes[dir] {
            Node::Dir { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn children(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.nodes[dir] {
            Node::Dir { children, .. } => children,
            other => panic!("{other:?} is not a directory"),
        }
    }

    /// Puts a new node in the place of what stands there.
    fn put(&mut self, place: &Place, last: String, node: Node) {
        self.remove(id(place), &last);
        self.nodes.push(node);
        let new = self.nodes.len() - 1;
        self.children(id(place)).insert(last, new);
    }

    fn remove(&mut self, dir: usize, name: &str) {
        let Some(old) = self.children(dir).remove(name) else { return };
        if let Node::Dir { children, .. } = &self.nodes[old] {
            for name in children.keys().cloned().collect::<Vec<_>>() {
                self.remove(old, &name);
            }
        }
    }

    /// One line per path, like [`super::tree::tree_of`].
    pub fn tree(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        let mut first = HashMap::new();
        self.describe(0, "", &mut lines, &mut first);
        lines
    }

    fn describe(
        &self,
        at: usize,
        path: &str,
        lines: &mut BTreeMap<String, String>,
        first: &mut HashMap<usize, String>,
    ) {
        let line = match &self.nodes[at] {
            Node::Dir { opaque, .. } => directory(*opaque),
            Node::File(data) => file(data.as_bytes()),
            Node::Symlink(target) => symlink(Path::new(target)),
            Node::Whiteout => WHITEOUT.to_owned(),
            Node::Special(kind) => (*kind).to_owned(),
        };
        let first_path = first.entry(at).or_insert_with(|| path.to_owned()).clone();
        lines.insert(path.to_owned(), format!("{line}, inode of '{first_path}'"));
        if let Node::Dir { children, .. } = &self.nodes[at] {
            for (name, child) in children {
                self.describe(*child, &format!("{path}/{name}"), lines, first);
            }
        }
    }

    /// The size that Docker records for the layer: all files, each inode once.
    pub fn size(&self) -> u64 {
        let mut sizes = HashMap::new();
        self.sizes(0, &mut sizes);
        sizes.values().map(|size| *size as u64).sum()
    }

    fn sizes(&self, at: usize, sizes: &mut HashMap<usize, usize>) {
        match &self.nodes[at] {
            Node::Dir { children, .. } => {
                children.values().for_each(|child| self.sizes(*child, sizes));
            }
            Node::File(text) | Node::Symlink(text) => drop(sizes.insert(at, text.len())),
            Node::Whiteout | Node::Special(_) => {}
        }
    }
}

fn empty_dir() -> Node {
    Node::Dir { children: BTreeMap::new(), opaque: false }
}

fn id(place: &Place) -> usize {
    place.last().map_or(0, |(_, id)| *id)
}

fn names(place: &Place, last: Option<&String>) -> Vec<String> {
    place.iter().map(|(name, _)| name).chain(last).cloned().collect()
}

/// A name's parts; `..` takes away the one before it, as Go's `filepath.Clean` does.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}
