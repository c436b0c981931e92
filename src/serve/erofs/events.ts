// Pre-content events as read(2) gives them, and the answer. Source: include/uapi/linux/fanotify.h, struct
// fanotify_event_metadata, fanotify_event_info_range, fanotify_response.

/** fields of fanotify_event_metadata */
const EVENT_LEN = 0;
const METADATA_LEN = 6;
const FD = 16;
const TID = 20;
export const METADATA_SIZE = 24;
/** fields of an info record of type 6; its header is a type byte, a zero, and a u16 length */
const INFO_RANGE = 6;
const RANGE_OFFSET = 8;
const RANGE_COUNT = 16;
/** one event with its range */
export const EVENT_SIZE = 48;

/** One event; filled by `readEvent`. */
export interface PreContentEvent {
  /** open file of the marked inode, to be closed; also the name of the event in the answer */
  fd: number;
  /** thread that waits */
  tid: number;
  offset: number;
  /** bytes; -1 when the kernel names no range */
  count: number;
  /** bytes of the event in the buffer */
  length: number;
}

/** An event object to be filled. */
export function newEvent(): PreContentEvent {
  return { fd: -1, tid: 0, offset: 0, count: -1, length: 0 };
}

/**
 * Read the event at a place of a buffer.
 *
 * @returns false when there is none
 */
export function readEvent(view: DataView, at: number, end: number, out: PreContentEvent): boolean {
  if (at + METADATA_SIZE > end) return false;
  const length = view.getUint32(at + EVENT_LEN, true);
  if (length < METADATA_SIZE || at + length > end) return false;
  out.length = length;
  out.fd = view.getInt32(at + FD, true);
  out.tid = view.getInt32(at + TID, true);
  out.offset = 0;
  out.count = -1;
  for (let info = at + view.getUint16(at + METADATA_LEN, true); info + 4 <= at + length;) {
    const size = view.getUint16(info + 2, true);
    if (size < 4) break;
    if (view.getUint8(info) === INFO_RANGE && info + RANGE_COUNT + 8 <= at + length) {
      out.offset = Number(view.getBigUint64(info + RANGE_OFFSET, true));
      out.count = Number(view.getBigUint64(info + RANGE_COUNT, true));
    }
    info += size;
  }
  return true;
}

/** Note in the buffer that an event needs no answer any more. */
export function settleEvent(view: DataView, at: number): void {
  view.setInt32(at + FD, -1, true);
}

/** Bytes of an answer. */
export const RESPONSE_SIZE = 8;

/** Put an answer into a buffer. @param response FAN_ALLOW or FAN_DENY_EIO */
export function putResponse(view: DataView, at: number, fd: number, response: number): void {
  view.setInt32(at, fd, true);
  view.setInt32(at + 4, response, true);
}
