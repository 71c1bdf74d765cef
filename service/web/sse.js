// Server-sent events out of the body of any answer: EventSource can only GET, and pictures are POSTed.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

/** Events `{name, data}` of a stream of bytes, in order; `data` is parsed JSON. Comments (heartbeats) are left out. */
export async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // An event without its blank line was cut off: it does not count.
      rest += value;
      // A carriage return at the end may be the first half of a line's end.
      const whole = rest.endsWith("\r") ? rest.length - 1 : rest.length;
      const lines = rest.slice(0, whole).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(whole);
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { name, data: JSON.parse(data.join("\n")) };
          name = "message";
          data = [];
        } else if (!line.startsWith(":")) {
          const [, field, content] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
          if (field === "event") name = content ?? "";
          if (field === "data") data.push(content ?? "");
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
