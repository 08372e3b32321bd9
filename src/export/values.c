/* Writes arrays of integers as NumPy, hexadecimal, C and safetensors files. */
#include "export/values.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "platform/bytes.h"
#include "platform/file.h"
#include "platform/json.h"
#include "platform/path.h"
#include "platform/sha256.h"
#include "platform/text.h"

typedef struct Type {
  const char *name, *npy, *c;
  size_t bytes;
  NitiFileDtype file;
} Type;

static const Type types[] = {{"int8", "|i1", "int8_t", 1, NITI_I8},      {"uint8", "|u1", "uint8_t", 1, NITI_I8},
                             {"int16", "<i2", "int16_t", 2, NITI_I16},   {"int32", "<i4", "int32_t", 4, NITI_I32},
                             {"uint32", "<u4", "uint32_t", 4, NITI_I32}, {"int64", "<i8", "int64_t", 8, NITI_I64}};

static const Type *type_of(const NitiValues *v) {
  const Type *t = types;
  while (strcmp(t->name, v->dtype) != 0) ++t;
  return t;
}

static size_t count_of(const NitiValues *v) {
  size_t count = 1;
  for (int32_t d = 0; d < v->rank; ++d) count *= (size_t)v->dims[d];
  return count;
}

const char *const niti_values_endings[NITI_VALUES_FORMATS] = {"npy", "hex", "h", "safetensors"};

unsigned niti_values_formats(const char *list) {
  const char *const *const names = niti_values_endings;
  unsigned formats = 0;
  while (*list) {
    const size_t length = strcspn(list, ",");
    int k = 0;
    while (k < 4 && (strlen(names[k]) != length || strncmp(names[k], list, length) != 0)) ++k;
    if (k == 4) return 0;
    formats |= 1u << k;
    list += length;
    if (*list && !*++list) return 0; /* nothing after a comma */
  }
  return formats;
}

/* Value i as 64 bits, sign extended where the type has a sign. */
static uint64_t value_at(const NitiValues *v, const Type *t, size_t i) {
  const char *at = (const char *)v->data + i * t->bytes;
  if (t->bytes == 8) return *(const uint64_t *)(const void *)at;
  if (t->bytes == 4)
    return t->name[0] == 'u' ? *(const uint32_t *)(const void *)at : (uint64_t)(int64_t) * (const int32_t *)(const void *)at;
  if (t->bytes == 2) return (uint64_t)(int64_t) * (const int16_t *)(const void *)at;
  return t->name[0] == 'u' ? (uint8_t)*at : (uint64_t)(int64_t)(signed char)*at;
}

/* ---- formats ---- */

/* Calls take with the values' bytes in a file's order. */
static void walk_values(const NitiValues *v, const Type *t, void (*take)(void *context, const uint8_t *piece, size_t count),
                        void *context) {
  uint8_t buffer[NITI_BYTES_PIECE];
  const size_t bytes = t->bytes * count_of(v);
  for (size_t at = 0, count = 0; at < bytes; at += count) {
    const uint8_t *piece = niti_bytes_piece(&count, buffer, v->data, at, bytes, t->bytes);
    take(context, piece, count);
  }
}

static void take_file(void *to, const uint8_t *piece, size_t count) { (void)fwrite(piece, 1, count, to); }
static void take_sum(void *sum, const uint8_t *piece, size_t count) { niti_sha256_add(sum, piece, count); }

static void sum_values(char digest[NITI_SHA256_TEXT], const NitiValues *v, const Type *t) {
  NitiSha256 sum;
  niti_sha256_begin(&sum);
  walk_values(v, t, take_sum, &sum);
  niti_sha256_end(&sum, digest);
}

static void write_npy(FILE *to, const NitiValues *v, const Type *t, const char *stem) {
  char dims[96], header[192];
  size_t used = 0;
  (void)stem;
  dims[0] = 0;
  for (int32_t d = 0; d < v->rank; ++d) used += (size_t)snprintf(dims + used, sizeof dims - used, "%" PRId64 ",", v->dims[d]);
  const int length = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", t->npy, dims);
  const int padded = (10 + length + 1 + 63) / 64 * 64 - 10;
  fwrite("\x93NUMPY\1\0", 1, 8, to);
  fputc(padded & 255, to);
  fputc(padded >> 8, to);
  fprintf(to, "%-*s\n", padded - 1, header);
  walk_values(v, t, take_file, to);
}

static void write_hex(FILE *to, const NitiValues *v, const Type *t, const char *stem) {
  (void)stem;
  const uint64_t mask = t->bytes == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * t->bytes)) - 1;
  for (size_t i = 0; i < count_of(v); ++i) fprintf(to, "%0*" PRIx64 "\n", (int)(2 * t->bytes), value_at(v, t, i) & mask);
}

static void write_h(FILE *to, const NitiValues *v, const Type *t, const char *stem) {
  fprintf(to, "/* %s", v->name);
  for (int32_t d = 0; d < v->rank; ++d) fprintf(to, "[%" PRId64 "]", v->dims[d]);
  if (v->scaled) fprintf(to, ", exponent %" PRId32, v->exponent);
  fprintf(to, " */\nstatic const %s ", t->c);
  for (const char *c = stem; *c; ++c) fputc(isalnum((unsigned char)*c) ? *c : '_', to);
  fprintf(to, "[%zu] = {\n", count_of(v));
  for (size_t i = 0; i < count_of(v); ++i) {
    if (t->name[0] == 'u')
      fprintf(to, "%" PRIu64 "u,%s", value_at(v, t, i), i % 16 == 15 ? "\n" : "");
    else if ((int64_t)value_at(v, t, i) == INT64_MIN)
      fprintf(to, "INT64_MIN,%s", i % 16 == 15 ? "\n" : "");
    else
      fprintf(to, "%" PRId64 "%s,%s", (int64_t)value_at(v, t, i), t->bytes == 8 ? "ll" : "", i % 16 == 15 ? "\n" : "");
  }
  fprintf(to, "};\n");
}

static NitiStatus write_safetensors(const char *path, const NitiValues *v, const Type *t) {
  NitiSafetensor tensor = {.name = (char *)"values", .dtype = t->file, .ndim = v->rank, .data = (void *)(uintptr_t)v->data};
  NitiPair pair = {(char *)"dtype", (char *)(uintptr_t)v->dtype};
  const NitiSafetensors content = {.tensors = &tensor, .count = 1, .metadata = &pair, .metadata_count = 1};
  NitiFile *file;
  for (int32_t d = 0; d < v->rank; ++d) tensor.dims[d] = (uint32_t)v->dims[d];
  NITI_TRY(niti_file_open(&file, path));
  const NitiStatus status = niti_safetensors_write(file, &content);
  if (status == NITI_OK) return niti_file_commit(file, NULL);
  niti_file_discard(file);
  return status;
}

typedef void (*Writer)(FILE *to, const NitiValues *v, const Type *t, const char *stem);

static NitiStatus write_text(const char *path, Writer writer, const NitiValues *v, const Type *t, const char *stem) {
  NitiTextMemory memory;
  size_t size = 0;
  if (niti_text_open(&memory)) writer(memory.to, v, t, stem);
  char *text = niti_text_close(&memory, &size);
  const NitiStatus status = text ? niti_file_replace(path, text, size) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  free(text);
  return status;
}

static NitiStatus write_format(const char *folder, const char *stem, int format, const NitiValues *v, const Type *t) {
  static const Writer writers[] = {write_npy, write_hex, write_h};
  char name[512], *path;
  (void)snprintf(name, sizeof name, "%s.%s", stem, niti_values_endings[format]);
  NITI_TRY(niti_path_join(&path, folder, name));
  const NitiStatus status = format == 3 ? write_safetensors(path, v, t) : write_text(path, writers[format], v, t, stem);
  free(path);
  return status;
}

NitiStatus niti_values_write(const char *folder, const char *stem, unsigned formats, const NitiValues *v, json_t *entries) {
  const Type *t = type_of(v);
  char digest[65];
  for (int format = 0; format < 4; ++format) {
    if (formats & (1u << format)) NITI_TRY(write_format(folder, stem, format, v, t));
  }
  json_t *dims = json_array();
  sum_values(digest, v, t);
  for (int32_t d = 0; d < v->rank; ++d) json_array_append_new(dims, json_integer(v->dims[d]));
  json_t *entry = json_pack("{s:s, s:s, s:s, s:s, s:o, s:s}", "name", v->name, "file", stem, "dtype", v->dtype, "layout",
                            v->layout, "dims", dims, "sha256", digest);
  if (v->scaled) json_object_set_new(entry, "exponent", json_integer(v->exponent));
  return json_array_append_new(entries, entry) == 0 ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", folder);
}

NitiStatus niti_values_write_index(const char *folder, const json_t *index) {
  char *path, *text = niti_json_text(index, JSON_INDENT(1));
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the index", folder);
  NitiStatus status = niti_path_join(&path, folder, "index.json");
  if (status == NITI_OK) status = niti_file_replace(path, text, strlen(text));
  free(path);
  free(text);
  return status;
}
