/* Structure-aware mutation of checkpoints. */
#include "forge.h"

#include "io/safetensors.h"
#include "platform/file.h"
#include "platform/sha256.h"
#include "platform/text.h"

static const char *const numbers[] = {"0",
                                      "1",
                                      "-1",
                                      "2",
                                      "3",
                                      "4",
                                      "5",
                                      "8",
                                      "255",
                                      "256",
                                      "65536",
                                      "1000000",
                                      "2147483647",
                                      "2147483648",
                                      "4294967295",
                                      "4294967296",
                                      "9223372036854775807",
                                      "-9223372036854775808",
                                      "18446744073709551615",
                                      "01",
                                      "+1",
                                      "1 ",
                                      ""};
static const char *const words[] = {"niti",
                                    "sgd",
                                    "linear",
                                    "conv",
                                    "norm",
                                    "maxpool",
                                    "avgpool",
                                    "dropout",
                                    "relu",
                                    "flatten",
                                    "residual",
                                    "layers:",
                                    "stochastic",
                                    "nearest",
                                    "softmax",
                                    "crop",
                                    "flip: true",
                                    "pad: 2",
                                    "epochs: 3",
                                    "batch: 2",
                                    "momentum: 0.9",
                                    "mu:",
                                    "lr: 0.1",
                                    "validation: 25%",
                                    "max_steps: 3",
                                    "input: [4, 4, 1]",
                                    "- ",
                                    "{",
                                    "}",
                                    "[",
                                    "]"};
#define COUNT(list) (sizeof(list) / sizeof *(list))

typedef struct Forge {
  NitiSafetensors content;
  uint64_t random;
} Forge;

static uint32_t below(Forge *forge, size_t count) { return count ? fuzz_word(&forge->random) % (uint32_t)count : 0; }

/* A copy of the text, changed by libFuzzer; ASCII and free of zero bytes, so that it is a JSON string. */
static void change_text(char **text) {
  const size_t size = strlen(*text), room = size + 64;
  char *changed = realloc(*text, room + 1);
  FUZZ_CHECK(changed);
  const size_t length = LLVMFuzzerMutate((uint8_t *)changed, size, room);
  changed[length] = 0;
  for (size_t i = 0; i < length; ++i) {
    changed[i] = (char)(changed[i] & 0x7f);
    if (!changed[i]) changed[i] = '\n';
  }
  *text = changed;
}

static void replace(char **text, const char *by) {
  char *copy = strdup(by); /* by may be *text */
  FUZZ_CHECK(copy);
  free(*text);
  *text = copy;
}

static void insert_word(Forge *forge, char **text) {
  const char *word = words[below(forge, COUNT(words))];
  const size_t length = strlen(*text), at = below(forge, length + 1);
  char *changed = malloc(length + strlen(word) + 1);
  FUZZ_CHECK(changed);
  memcpy(changed, *text, at);
  strcpy(changed + at, word);
  strcat(changed, *text + at);
  free(*text);
  *text = changed;
}

static void change_pair(Forge *forge) {
  NitiSafetensors *c = &forge->content;
  if (!c->metadata_count) return;
  NitiPair *pair = &c->metadata[below(forge, c->metadata_count)];
  switch (below(forge, 8)) {
    case 0: change_text(&pair->key); break;
    case 1: { /* remove it */
      const NitiPair gone = *pair;
      *pair = c->metadata[--c->metadata_count];
      free(gone.key);
      free(gone.value);
      break;
    }
    case 2: replace(&pair->value, c->metadata[below(forge, c->metadata_count)].value); break;
    case 3:
    case 4: replace(&pair->value, numbers[below(forge, COUNT(numbers))]); break;
    case 5: insert_word(forge, &pair->value); break;
    default: change_text(&pair->value); break;
  }
}

/* Makes the data as long as the shape says, where that is short. */
static void resize(NitiSafetensor *tensor, size_t had) {
  size_t bytes;
  if (niti_safetensor_bytes(&bytes, tensor) != NITI_OK || bytes > 4096) tensor->ndim = 0;
  FUZZ_CHECK(niti_safetensor_bytes(&bytes, tensor) == NITI_OK);
  uint8_t *data = calloc(1, bytes + 1);
  FUZZ_CHECK(data);
  if (tensor->data) memcpy(data, tensor->data, had < bytes ? had : bytes);
  free(tensor->data);
  tensor->data = data;
}

static void change_tensor(Forge *forge) {
  NitiSafetensors *c = &forge->content;
  static const int32_t exponents[] = {0, -1, 1, 1024, -1024, 1025, INT32_MAX, INT32_MIN, -30, 30, 100, -100};
  size_t bytes;
  if (!c->count) return;
  NitiSafetensor *tensor = &c->tensors[below(forge, c->count)];
  FUZZ_CHECK(niti_safetensor_bytes(&bytes, tensor) == NITI_OK);
  switch (below(forge, 8)) {
    case 0: change_text(&tensor->name); break;
    case 1:
      tensor->dtype = (NitiFileDtype)below(forge, NITI_I64 + 1);
      resize(tensor, bytes);
      break;
    case 2:
      if (tensor->ndim)
        tensor->dims[below(forge, (size_t)tensor->ndim)] = below(forge, 2) ? below(forge, 8) : fuzz_word(&forge->random);
      resize(tensor, bytes);
      break;
    case 3:
      tensor->ndim = (int32_t)below(forge, NITI_DIMS_MAX + 1);
      for (int i = 0; i < tensor->ndim; ++i) tensor->dims[i] = below(forge, 5);
      resize(tensor, bytes);
      break;
    case 4: { /* remove it */
      const NitiSafetensor gone = *tensor;
      *tensor = c->tensors[--c->count];
      free(gone.name);
      free(gone.data);
      break;
    }
    case 5:
      if (tensor->dtype == NITI_I32 && bytes == 4) memcpy(tensor->data, &exponents[below(forge, COUNT(exponents))], 4);
      break;
    case 6:
      if (bytes) memset(tensor->data, (int[]){0, 0x7f, 0x81, 0x80, 0xff}[below(forge, 5)], bytes);
      break;
    default:
      if (bytes) (void)LLVMFuzzerMutate(tensor->data, bytes, bytes);
      break;
  }
}

static int compare_pairs(const void *a, const void *b) { return strcmp(((const NitiPair *)a)->key, ((const NitiPair *)b)->key); }
static int compare_tensors(const void *a, const void *b) {
  return strcmp(((const NitiSafetensor *)a)->name, ((const NitiSafetensor *)b)->name);
}

static void add_number(NitiSha256 *sha, uint32_t v) {
  const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
  niti_sha256_add(sha, bytes, 4);
}

static const NitiSafetensor *find(const NitiSafetensors *c, const char *name, const char *suffix) {
  for (size_t i = 0; i < c->count; ++i) {
    const size_t length = strlen(name);
    if (strncmp(c->tensors[i].name, name, length) == 0 && strcmp(c->tensors[i].name + length, suffix) == 0) return &c->tensors[i];
  }
  return NULL;
}

/* Of sorted content. */
static void hash(char text[65], const NitiSafetensors *c) {
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  for (size_t i = 0; i < c->count; ++i) {
    const NitiSafetensor *t = &c->tensors[i], *e = find(c, t->name, ".exponent");
    size_t bytes;
    int32_t exponent = 0;
    if (t->dtype == NITI_I32 || !e || niti_safetensor_bytes(&bytes, t) != NITI_OK) continue;
    if (e->dtype == NITI_I32 && e->ndim == 0) memcpy(&exponent, e->data, 4);
    niti_sha256_add_text(&sha, t->name);
    add_number(&sha, (uint32_t)t->ndim);
    for (int d = 0; d < t->ndim; ++d) add_number(&sha, t->dims[d]);
    add_number(&sha, (uint32_t)exponent);
    niti_sha256_add(&sha, t->data, bytes);
  }
  niti_sha256_end(&sha, text);
}

static void checksum(char text[65], const NitiSafetensors *c) {
  static const char *const dtypes[] = {"I8", "I16", "I32", "I64", "8 bits", "16 bits", "32 bits", "64 bits"};
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  for (size_t i = 0; i < c->metadata_count; ++i) {
    if (strcmp(c->metadata[i].key, "checksum") == 0) continue;
    niti_sha256_add_text(&sha, c->metadata[i].key);
    niti_sha256_add_text(&sha, c->metadata[i].value);
  }
  for (size_t i = 0; i < c->count; ++i) {
    const NitiSafetensor *t = &c->tensors[i];
    size_t bytes;
    char number[16];
    if (niti_safetensor_bytes(&bytes, t) != NITI_OK) continue;
    niti_sha256_add_text(&sha, t->name);
    niti_sha256_add_text(&sha, dtypes[t->dtype]);
    for (int d = 0; d < t->ndim; ++d) {
      (void)snprintf(number, sizeof number, "%lu", (unsigned long)t->dims[d]);
      niti_sha256_add_text(&sha, number);
    }
    niti_sha256_add_text(&sha, "");
    niti_sha256_add(&sha, t->data, bytes);
  }
  niti_sha256_end(&sha, text);
}

static void sign(NitiSafetensors *c) {
  char text[65];
  qsort(c->tensors, c->count, sizeof *c->tensors, compare_tensors);
  if (c->metadata_count) qsort(c->metadata, c->metadata_count, sizeof *c->metadata, compare_pairs);
  hash(text, c);
  for (size_t i = 0; i < c->metadata_count; ++i)
    if (strcmp(c->metadata[i].key, "hash") == 0) replace(&c->metadata[i].value, text);
  checksum(text, c);
  for (size_t i = 0; i < c->metadata_count; ++i)
    if (strcmp(c->metadata[i].key, "checksum") == 0) replace(&c->metadata[i].value, text);
}

/* The content as a file's bytes in data; 0: it cannot be written, or has no room. */
static size_t store(uint8_t *data, size_t room, const NitiSafetensors *content) {
  const char *path = fuzz_at("forged");
  NitiFile *file;
  char *bytes;
  size_t size = 0;
  if (niti_file_open(&file, path) != NITI_OK) return 0;
  if (niti_safetensors_write(file, content) != NITI_OK) {
    niti_file_discard(file);
    return 0;
  }
  if (niti_file_commit(file, NULL) != NITI_OK || niti_file_read(&bytes, &size, path, room) != NITI_OK) return 0;
  memcpy(data, bytes, size);
  free(bytes);
  return size;
}

size_t forge_mutate(uint8_t *data, size_t size, size_t room, unsigned seed) {
  Forge forge = {.random = seed};
  if (below(&forge, 8) == 0) return LLVMFuzzerMutate(data, size, room);
  if (niti_safetensors_read(&forge.content, fuzz_put("mutated", data, size)) != NITI_OK)
    return LLVMFuzzerMutate(data, size, room);
  for (uint32_t edits = 1 + below(&forge, 3); edits > 0; --edits) {
    if (below(&forge, 2))
      change_pair(&forge);
    else
      change_tensor(&forge);
  }
  if (below(&forge, 16)) sign(&forge.content);
  const size_t stored = store(data, room, &forge.content);
  niti_safetensors_clear(&forge.content);
  return stored ? stored : LLVMFuzzerMutate(data, size, room);
}
