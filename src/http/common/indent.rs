//! Compact JSON for human eyes. It is moved apart, not understood: every value stays as the feed wrote it.

/// Where in a JSON text one is that comes part by part.
#[derive(Debug, Default)]
pub struct Indent {
    depth: usize,
    /// Just behind an opening bracket.
    opened: bool,
    in_string: bool,
    escaped: bool,
}

impl Indent {
    /// Writes the next part of the text, wherever that begins and ends, indented by two spaces a level.
    pub fn write(&mut self, part: &[u8], out: &mut Vec<u8>) {
        part.iter().for_each(|byte| self.take(*byte, out));
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return out.push(byte);
        }
        let closes = matches!(byte, b']' | b'}');
        if closes {
            self.depth = self.depth.saturating_sub(1);
        }
        // An empty list or object stays on its line.
        if self.opened != closes {
            self.new_line(out);
        }
        self.opened = matches!(byte, b'[' | b'{');
        self.in_string = byte == b'"';
        out.push(byte);
        match byte {
            b'[' | b'{' => self.depth += 1,
            b',' => self.new_line(out),
            b':' => out.push(b' '),
            _ => {}
        }
    }

    fn new_line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}
