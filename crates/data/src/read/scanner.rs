//! JSON as bytes: what belongs to one value, without parsing it, and on which line the reading is.

use std::io::BufRead;

use crate::source::Input;

/// A JSON text that is read byte by byte.
pub(crate) struct Scanner {
    input: Input,
    /// The line that is being read, from 1.
    pub(crate) line: u64,
}

impl Scanner {
    pub(crate) fn new(input: Input) -> Self {
        Self { input, line: 1 }
    }

    /// Reads the rest of a value that begins with `first`; `false` if the file ends first.
    pub(crate) fn value(&mut self, first: u8, mut keep: Option<&mut Vec<u8>>) -> std::io::Result<bool> {
        let mut depth = 0usize;
        let mut in_string = false;
        let mut byte = first;
        loop {
            if let Some(kept) = &mut keep {
                kept.push(byte);
            }
            if in_string {
                match byte {
                    b'\\' => match self.byte()? {
                        Some(escaped) => {
                            if let Some(kept) = &mut keep {
                                kept.push(escaped);
                            }
                        }
                        None => return Ok(false),
                    },
                    b'"' => in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            if depth == 0 && !in_string {
                let closed = matches!(byte, b'"' | b'}' | b']');
                // A number or a word ends where a delimiter follows.
                let next = if closed { None } else { self.peek()? };
                if closed || next.is_none_or(|b| matches!(b, b',' | b']' | b'}') || b.is_ascii_whitespace()) {
                    return Ok(true);
                }
            }
            match self.byte()? {
                Some(next) => byte = next,
                None => return Ok(false),
            }
        }
    }

    /// The first byte of the file that is not white space, nor a byte order mark.
    pub(crate) fn first_token(&mut self) -> std::io::Result<Option<u8>> {
        if self.input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.input.consume(3);
        }
        self.token()
    }

    /// The next byte that is not white space.
    pub(crate) fn token(&mut self) -> std::io::Result<Option<u8>> {
        let token = self.peek_token()?;
        if token.is_some() {
            self.byte()?;
        }
        Ok(token)
    }

    /// Like [`Scanner::token`], without taking it.
    pub(crate) fn peek_token(&mut self) -> std::io::Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(b) if b.is_ascii_whitespace() => {
                    self.byte()?;
                }
                other => return Ok(other),
            }
        }
    }

    fn peek(&mut self) -> std::io::Result<Option<u8>> {
        Ok(self.input.fill_buf()?.first().copied())
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> std::io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.input.consume(1);
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }
}
