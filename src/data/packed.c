/* Unpacks gzip files of any number of members, as packed.h promises. */
#include "data/packed.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "platform/file.h"
#include "platform/system.h"

enum { BUFFER = 1 << 17, WINDOW = 15 + 16 /* the largest, within gzip's header and checksum */, PIECE = 1 << 30 };

struct NitiPacked {
  const char *path;
  int fd;
  bool packed;
  bool started;      /* the stream's memory is there */
  bool between;      /* a member has ended */
  bool ended;        /* nothing is left to read from the file */
  bool done;         /* nothing is left to hand out */
  uint64_t size;     /* of the file */
  uint64_t taken;    /* bytes read from it */
  uint64_t position; /* bytes handed out */
  z_stream stream;   /* next_in, avail_in: what of the buffer is left, packed or not */
  uint8_t buffer[BUFFER];
};

static NitiStatus fail_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory to read it", path); }

static NitiStatus fail_damage(const NitiPacked *p, const char *what) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: damaged gzip data: %s", p->path, (unsigned long long)p->position, what);
}

/* Reads until the buffer holds `count` bytes, or the file ends. */
static NitiStatus fill(NitiPacked *p, size_t count) {
  z_stream *s = &p->stream;
  if (s->avail_in >= count || p->ended) return NITI_OK;
  if (s->avail_in) memmove(p->buffer, s->next_in, s->avail_in);
  s->next_in = p->buffer;
  while (s->avail_in < count && !p->ended) {
    const ssize_t got = niti_system.read(p->fd, p->buffer + s->avail_in, BUFFER - s->avail_in);
    if (got < 0) return niti_fail_errno(p->path, "read");
    p->ended = got == 0;
    s->avail_in += (unsigned)got;
    p->taken += (uint64_t)got;
  }
  return NITI_OK;
}

static void skip(NitiPacked *p, size_t count) {
  p->stream.next_in += count;
  p->stream.avail_in -= (unsigned)count;
}

static bool has_magic(const NitiPacked *p) {
  return p->stream.avail_in >= 2 && p->stream.next_in[0] == 0x1f && p->stream.next_in[1] == 0x8b;
}

/* Only zeros may be left. A longer hole in a file takes no room on the disk, but hours to read. */
static NitiStatus skip_padding(NitiPacked *p) {
  for (int64_t padding = 0;; ++padding) {
    NITI_TRY(fill(p, 1));
    p->done = !p->stream.avail_in;
    if (p->done) return NITI_OK;
    if (*p->stream.next_in || padding == NITI_PADDING_MAX)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu of the packed file: expected the end of the file, after its gzip data",
                       p->path, (unsigned long long)(p->taken - p->stream.avail_in));
    skip(p, 1);
  }
}

/* After a member: begins the next one, or makes sure that there is none. */
static NitiStatus next_member(NitiPacked *p) {
  NITI_TRY(fill(p, 2));
  if (!has_magic(p)) return skip_padding(p);
  p->between = false;
  return inflateReset(&p->stream) == Z_OK ? NITI_OK : fail_damage(p, "its next member");
}

static NitiStatus unpack(NitiPacked *p, uint8_t *to, size_t size, size_t *got) {
  z_stream *s = &p->stream;
  *got = 0;
  if (p->between) NITI_TRY(next_member(p));
  if (p->done) return NITI_OK;
  if (!s->avail_in) return fail_damage(p, "the file ends too early");
  s->next_out = to;
  s->avail_out = size < PIECE ? (unsigned)size : PIECE;
  const unsigned room = s->avail_out;
  const int code = inflate(s, Z_NO_FLUSH);
  *got = room - s->avail_out;
  p->between = code == Z_STREAM_END;
  if (code == Z_OK || code == Z_STREAM_END) return NITI_OK;
  return code == Z_MEM_ERROR ? fail_memory(p->path) : fail_damage(p, s->msg ? s->msg : "not a gzip stream");
}

static NitiStatus copy(NitiPacked *p, uint8_t *to, size_t size, size_t *got) {
  *got = size < p->stream.avail_in ? size : p->stream.avail_in;
  if (*got) memcpy(to, p->stream.next_in, *got);
  skip(p, *got);
  p->done = *got == 0;
  return NITI_OK;
}

NitiStatus niti_packed_read(NitiPacked *p, void *to, size_t size, size_t *got) {
  for (*got = 0; *got < size && !p->done;) {
    size_t part = 0;
    NITI_TRY(fill(p, 1));
    NITI_TRY((p->packed ? unpack : copy)(p, (uint8_t *)to + *got, size - *got, &part));
    *got += part;
    p->position += part;
  }
  return NITI_OK;
}

static NitiStatus start(NitiPacked *p) {
  NITI_TRY(fill(p, 2));
  p->packed = has_magic(p);
  if (!p->packed) return NITI_OK;
  const int code = inflateInit2(&p->stream, WINDOW);
  p->started = code == Z_OK;
  return p->started ? NITI_OK : fail_memory(p->path);
}

NitiStatus niti_packed_open(NitiPacked **out, const char *path) {
  NitiPacked *p = *out = calloc(1, sizeof *p);
  if (!p) return fail_memory(path);
  p->path = path;
  p->fd = -1;
  NitiStatus status = niti_file_open_read(&p->fd, &p->size, path);
  if (status == NITI_OK) status = start(p);
  if (status == NITI_OK) return NITI_OK;
  niti_packed_close(p);
  *out = NULL;
  return status;
}

bool niti_packed_is(const NitiPacked *packed) { return packed->packed; }
uint64_t niti_packed_size(const NitiPacked *packed) { return packed->size; }

void niti_packed_close(NitiPacked *p) {
  if (!p) return;
  if (p->started) (void)inflateEnd(&p->stream);
  if (p->fd >= 0) (void)niti_system.close(p->fd);
  free(p);
}
