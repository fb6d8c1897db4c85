//! `graph.bin`: the links of an HNSW index.
//!
//! Little-endian `u32` throughout: `"RDGR"`, rows, `m`, the entry (or `u32::MAX` if there is no row); then one byte a
//! row for its layer; then for each row and each layer from 0 to the row's own a count and that many links.

use std::io::Write;

use super::graph::{Graph, MAX_LAYERS, SPARE};
use crate::Result;
use crate::store::{Reader, VectorHeader, number};

pub(crate) const GRAPH: &str = "graph.bin";
const MAGIC: u32 = u32::from_le_bytes(*b"RDGR");
const NONE: u32 = u32::MAX;

pub(crate) fn write(graph: &Graph, out: &mut dyn Write) -> Result<()> {
    let rows = graph.len() as u32;
    let mut buffer: Vec<u8> = Vec::new();
    for number in [MAGIC, rows, graph.m() as u32, graph.entry().unwrap_or(NONE)] {
        buffer.extend(number.to_le_bytes());
    }
    buffer.extend((0..rows).map(|id| graph.level(id) as u8));
    out.write_all(&buffer)?;
    for id in 0..rows {
        buffer.clear();
        for layer in 0..=graph.level(id) {
            let links = graph.links(id, layer);
            buffer.extend((links.len() as u32).to_le_bytes());
            buffer.extend(links.iter().flat_map(|link| link.to_le_bytes()));
        }
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads a graph of as many rows as the manifest says. The checksum has shown that the bytes are those written; the
/// checks here are against a writer that was wrong, so that no search can leave its arrays.
pub(crate) fn read(reader: &Reader<VectorHeader>) -> Result<Graph> {
    let bytes = reader.read(GRAPH)?;
    parse(&bytes, reader.manifest.count).map_err(|problem| reader.corrupt(GRAPH, problem))
}

fn parse(bytes: &[u8], expected: usize) -> Result<Graph, String> {
    let mut rest = bytes;
    if number(&mut rest)? != MAGIC {
        return Err("it does not begin as a graph does".to_owned());
    }
    let (rows, m, entry) = (number(&mut rest)? as usize, number(&mut rest)? as usize, number(&mut rest)?);
    if rows != expected {
        return Err(format!("it has {rows} rows, the manifest {expected}"));
    }
    if !(2..=255).contains(&m) {
        return Err(format!("its m is {m}"));
    }
    let (levels, tail) = rest.split_at_checked(rows).ok_or("it ends within the layers")?;
    rest = tail;
    let mut graph = Graph::new(m);
    for &level in levels {
        if usize::from(level) >= MAX_LAYERS {
            return Err(format!("a row lives on layer {level}"));
        }
        graph.push(level.into());
    }
    match levels.get(entry as usize) {
        Some(level) if levels.iter().all(|other| other <= level) => graph.set_entry(entry),
        None if rows == 0 && entry == NONE => {}
        _ => return Err(format!("its entry is row {entry}")),
    }
    let mut links = Vec::new();
    for id in 0..rows as u32 {
        for layer in 0..=graph.level(id) {
            let count = number(&mut rest)? as usize;
            if count > graph.width(layer) + SPARE {
                return Err(format!("row {id} has {count} links on layer {layer}"));
            }
            links.clear();
            for _ in 0..count {
                let link = number(&mut rest)?;
                if levels.get(link as usize).is_none_or(|level| usize::from(*level) < layer) {
                    return Err(format!("row {id} links to {link} on layer {layer}"));
                }
                links.push(link);
            }
            graph.set_links(id, layer, &links);
        }
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> Graph {
        let mut graph = Graph::new(2);
        for level in [0, 1, 0] {
            graph.push(level);
        }
        graph.set_entry(1);
        graph.set_links(0, 0, &[1, 2]);
        graph.set_links(1, 0, &[0]);
        graph.set_links(2, 0, &[1]);
        graph
    }

    #[test]
    fn graphs_round_trip() {
        let mut bytes = Vec::new();
        write(&small(), &mut bytes).unwrap();
        assert_eq!(parse(&bytes, 3).unwrap(), small());
        assert!(parse(&bytes, 4).is_err());
        let mut empty = Vec::new();
        write(&Graph::new(5), &mut empty).unwrap();
        assert_eq!(parse(&empty, 0).unwrap(), Graph::new(5));
    }

    proptest! {
        /// Whatever the bytes, reading ends with a graph or an error, and a graph can be walked.
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..60, value: u8, cut in 0usize..70) {
            let mut bytes = Vec::new();
            write(&small(), &mut bytes).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(8));
            if let Ok(graph) = parse(&bytes, 3) {
                graph.unreachable();
            }
        }
    }
}
