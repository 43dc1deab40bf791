// Server-sent events, read with fetch because an EventSource cannot send a token.

import { ApiError, request } from "./api.js";
import { showConnected, showReconnecting } from "./connection.js";
import { sleep } from "./sleep.js";

const RETRY_MS = 1500;

// Pass the events that follow `lastId` to `onEvents`, in batches, and reconnect when the connection
// breaks. Return the id of the last event when the service closes the stream: the job has ended, or
// the service shuts down gracefully. Throw an ApiError if the service refuses the request.
export async function followEvents(path, onEvents, signal, lastId) {
  while (!signal.aborted) {
    try {
      const response = await request(path, { headers: { "Last-Event-ID": lastId }, signal });
      showConnected();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return lastId;
        buffer += value;
        const blocks = buffer.split("\n\n");
        buffer = blocks.pop();
        const events = blocks.map(parseEvent).filter(Boolean);
        if (!events.length) continue;
        lastId = events[events.length - 1].id;
        onEvents(events);
      }
    } catch (error) {
      if (signal.aborted) break;
      if (error instanceof ApiError && error.status < 500) throw error;
      showReconnecting();
      await sleep(RETRY_MS);
    }
  }
  return lastId;
}

// Return {id, kind, data}, or null for a keep-alive comment.
function parseEvent(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return fields.data ? { id: fields.id, kind: fields.event, data: JSON.parse(fields.data) } : null;
}
