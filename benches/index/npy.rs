//! Matrices as numpy writes them: `f32`, little-endian, rows after one another.

/// The numbers of a file, and how many make a row.
pub fn read(path: &str) -> Result<(Vec<f32>, usize), Box<dyn std::error::Error>> {
    let bytes = fs_err::read(path)?;
    let bad = |what: &str| format!("{path}: {what}");
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| bad("is no .npy file"))?;
    let (&[major, _], rest) = rest.split_first_chunk::<2>().ok_or_else(|| bad("ends too early"))?;
    let (length, rest) = if major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(|| bad("ends too early"))?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("ends too early"))?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| bad("ends too early"))?;
    let header = std::str::from_utf8(header)?;
    if !header.contains("'<f4'") || header.contains("'fortran_order': True") {
        return Err(bad("holds no rows of f32; save it with astype(\"float32\")").into());
    }
    let shape = header.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(shape, _)| shape);
    let shape: Vec<usize> = shape
        .unwrap_or_default()
        .split(',')
        .filter(|size| !size.trim().is_empty())
        .map(|size| size.trim().parse())
        .collect::<Result<_, _>>()?;
    let numbers: Vec<f32> = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match shape[..] {
        [rows, dim] if rows * dim == numbers.len() => Ok((numbers, dim)),
        _ => Err(bad("is no matrix").into()),
    }
}
