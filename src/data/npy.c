/* The .npy format: a magic number, a header that is a Python dictionary, and the elements. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "platform/bytes.h"
#include "platform/file.h"
#include "platform/system.h"

enum { MAGIC = 6, PREFIX_MAX = 12, KEYS = 3 };

/* The header's text, and how far it is read. */
typedef struct Header {
  const char *path, *text;
  size_t size, at;
  size_t offset; /* of the text in the file, for messages */
  char type[16];
  bool fortran;
  unsigned keys; /* found, one bit each */
} Header;

static NitiStatus malformed(const Header *h, const char *expected) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: malformed header, expected %s", h->path, h->offset + h->at, expected);
}

static char peek(Header *h) {
  while (h->at < h->size && strchr(" \t\r\n", h->text[h->at])) ++h->at; /* a zero byte counts as white space */
  return h->at < h->size ? h->text[h->at] : 0;
}

static bool take(Header *h, char c) {
  if (peek(h) != c) return false;
  ++h->at;
  return true;
}

static bool take_word(Header *h, const char *word) {
  (void)peek(h);
  const size_t length = strlen(word);
  if (h->size - h->at < length || strncmp(h->text + h->at, word, length) != 0) return false;
  h->at += length;
  return true;
}

/* A quoted string without escapes. */
static bool take_string(Header *h, char *out, size_t size) {
  const char quote = peek(h);
  size_t length = 0;
  if (quote != '\'' && quote != '"') return false;
  for (++h->at; h->at < h->size && h->text[h->at] != quote; ++h->at) {
    if (length + 1 < size) out[length++] = h->text[h->at];
  }
  out[length] = 0;
  return take(h, quote);
}

static NitiStatus read_type(Header *h) {
  if (peek(h) == '[') return niti_fail(NITI_ERROR_FORMAT, "%s: a structured array (expected a plain one of integers)", h->path);
  return take_string(h, h->type, sizeof h->type) ? NITI_OK : malformed(h, "a type such as '|u1'");
}

static NitiStatus read_order(Header *h) {
  h->fortran = take_word(h, "True");
  return h->fortran || take_word(h, "False") ? NITI_OK : malformed(h, "True or False");
}

static bool take_number(Header *h, int64_t *value) {
  char c = peek(h);
  if (c < '0' || c > '9') return false;
  for (*value = 0; h->at < h->size && (c = h->text[h->at]) >= '0' && c <= '9'; ++h->at) {
    if (*value > INT64_MAX / 10 - 1) return false;
    *value = *value * 10 + (c - '0');
  }
  return true;
}

static NitiStatus read_shape(Header *h, NitiArray *array) {
  if (!take(h, '(')) return malformed(h, "a tuple");
  while (!take(h, ')')) {
    int64_t value;
    if (!take_number(h, &value)) return malformed(h, "a dimension");
    if (array->ndim == NITI_ARRAY_DIMS_MAX)
      return niti_fail(NITI_ERROR_FORMAT, "%s: expected at most %d dimensions", h->path, NITI_ARRAY_DIMS_MAX);
    if (value < 1) return niti_fail(NITI_ERROR_FORMAT, "%s: dimension %d is 0, expected at least 1", h->path, array->ndim);
    array->dims[array->ndim++] = value;
    if (!take(h, ',') && peek(h) != ')') return malformed(h, "a comma or the tuple's end");
  }
  return array->ndim > 0 ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "%s: a single number, expected an array", h->path);
}

static NitiStatus read_key(Header *h, NitiArray *array) {
  static const char *const names[KEYS] = {"descr", "fortran_order", "shape"};
  char name[32];
  int key = 0;
  if (!take_string(h, name, sizeof name)) return malformed(h, "a key");
  while (key < KEYS && strcmp(name, names[key]) != 0) ++key;
  if (key == KEYS || h->keys & 1u << key) return malformed(h, "each of descr, fortran_order and shape once");
  h->keys |= 1u << key;
  if (!take(h, ':')) return malformed(h, "a colon");
  return key == 0 ? read_type(h) : key == 1 ? read_order(h) : read_shape(h, array);
}

static NitiStatus read_dictionary(Header *h, NitiArray *array) {
  if (!take(h, '{')) return malformed(h, "a dictionary");
  while (!take(h, '}')) {
    NITI_TRY(read_key(h, array));
    if (!take(h, ',') && peek(h) != '}') return malformed(h, "a comma or the dictionary's end");
  }
  if (h->keys != (1u << KEYS) - 1) return malformed(h, "descr, fortran_order and shape");
  return peek(h) == 0 ? NITI_OK : malformed(h, "nothing after the dictionary");
}

static NitiStatus set_type(NitiArray *array, const Header *h) {
  const char *t = h->type, order = *t, kind = order ? t[1] : 0;
  const int bytes = kind && t[2] >= '0' && t[2] <= '9' && !t[3] ? t[2] - '0' : 0;
  if (kind == 'O' || (order == 'O' && !kind))
    return niti_fail(NITI_ERROR_FORMAT, "%s: an array of Python objects (expected integers: save it with a plain dtype)",
                     h->path);
  if (kind == 'f' || kind == 'c')
    return niti_fail(NITI_ERROR_FORMAT,
                     "%s: floating point, dtype '%s' (expected integers: scale the values to int16 and save those)", h->path, t);
  const bool integer = (kind == 'u' || kind == 'i') && (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
  if (!strchr("<>|=", order) || !(integer || (kind == 'b' && bytes == 1)))
    return niti_fail(NITI_ERROR_FORMAT, "%s: dtype '%s' (expected integers)", h->path, t);
  if (order == '>' && bytes > 1)
    return niti_fail(NITI_ERROR_FORMAT, "%s: big-endian, dtype '%s' (expected little-endian: save it with astype('<%s'))",
                     h->path, t, t + 1);
  if (h->fortran && array->ndim > 1)
    return niti_fail(NITI_ERROR_FORMAT, "%s: in Fortran order (expected C order: save numpy.ascontiguousarray of it)", h->path);
  array->sign = kind == 'i';
  array->bytes = bytes;
  return NITI_OK;
}

/* The elements must fill the rest of the file. */
static NitiStatus check_size(const NitiArray *array, const char *path, uint64_t offset, uint64_t size) {
  const uint64_t have = size - offset;
  uint64_t want = (uint64_t)array->bytes;
  for (int i = 0; i < array->ndim; ++i) {
    if ((uint64_t)array->dims[i] > UINT64_MAX / 2 / want)
      return niti_fail(NITI_ERROR_FORMAT, "%s: a shape of more than 2^63 bytes", path);
    want *= (uint64_t)array->dims[i];
  }
  if (have == want) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: %s, since the header promises %llu bytes of elements", path,
                   (unsigned long long)(have < want ? size : offset + want),
                   have < want ? "the file ends here" : "expected the end", (unsigned long long)want);
}

/* Reads the header of a mapped file of `size` bytes. */
static NitiStatus read_header(NitiArray *array, const char *path, uint64_t size) {
  const uint8_t *bytes = array->memory;
  if (size < PREFIX_MAX || memcmp(bytes, "\x93NUMPY", MAGIC) != 0)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte 0: not an .npy file", path);
  if (bytes[6] < 1 || bytes[6] > 3)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte 6: version %u.%u, expected 1.0 to 3.0", path, bytes[6], bytes[7]);
  const size_t prefix = bytes[6] == 1 ? 10 : PREFIX_MAX;
  size_t length = 0;
  for (size_t i = prefix; i-- > 8;) length = length << 8 | bytes[i];
  if (length > size - prefix)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: the file ends within its header", path, (unsigned long long)size);
  Header h = {.path = path, .text = (const char *)bytes + prefix, .size = length, .offset = prefix};
  NITI_TRY(read_dictionary(&h, array));
  NITI_TRY(set_type(array, &h));
  const uint64_t offset = prefix + length;
  NITI_TRY(check_size(array, path, offset, size));
  if (offset % (uint64_t)array->bytes != 0)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: the elements are not aligned (numpy.save aligns them)", path,
                     (unsigned long long)offset);
  niti_bytes_little((uint8_t *)array->memory + offset, (size_t)(size - offset) / (size_t)array->bytes, (size_t)array->bytes);
  array->data = bytes + offset;
  return NITI_OK;
}

NitiStatus niti_npy_read(NitiArray *out, const char *path) {
  int fd;
  uint64_t size = 0;
  *out = (NitiArray){0};
  NITI_TRY(niti_file_open_read(&fd, &size, path));
  do {
    if (size > 0)
      out->memory = niti_system.mmap(NULL, (size_t)size, PROT_READ | (NITI_BYTES_BIG ? PROT_WRITE : 0), MAP_PRIVATE, fd, 0);
  } while (out->memory == MAP_FAILED && errno == EINTR);
  const int reason = errno;
  (void)niti_system.close(fd);
  if (out->memory == MAP_FAILED) {
    out->memory = NULL;
    return niti_fail(NITI_ERROR_FILE, "%s: cannot be mapped into memory: %s", path, strerror(reason));
  }
  out->mapped = (size_t)size;
  return read_header(out, path, size);
}

void niti_array_close(NitiArray *array) {
  if (array->mapped > 0)
    (void)niti_system.munmap(array->memory, array->mapped);
  else
    free(array->memory);
  *array = (NitiArray){0};
}
