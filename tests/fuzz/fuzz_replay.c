/* Devices' logs for `niti replay`. Input: a byte, the line before which the log is cut in two, then the log. What a line may say
 * is read again here. A log that is accepted gives the same as its two parts, written anew, one going on from the other. */
#include "export/import.h"
#include "fuzz.h"
#include "train/locate.h"

enum { SIDE = 4, TRAIN = 12, CLASSES = 3, BATCH = 2, MU_MAX = 30, STEPS_MAX = 40, LOG_MAX = 1 << 15, ANY = 1 << 20 };

static const char recipe[] =
    "name: fuzz\nmodel:\n  name: tiny\n  input: [4, 4, 1]\n  classes: 3\n  layers:\n    - flatten\n    - linear: {out: classes}\n"
    "data: {kind: idx, mean: [0.5], std: [0.25]}\nbatch: 2\nepochs: 1\nupdate: {kind: niti, mu: 3}\n";
static const NitiDevice device = {.backend = "cpu", .isa = "ref", .threads = 1};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  uint8_t images[16 + TRAIN * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, TRAIN, 0, 0, 0, SIDE, 0, 0, 0, SIDE},
                                     labels[8 + TRAIN] = {0, 0, 8, 1, 0, 0, 0, TRAIN};
  NitiCheckpoint *checkpoint;
  NitiLocation where;
  (void)argc;
  (void)argv;
  for (int i = 0; i < TRAIN * SIDE * SIDE; ++i) images[16 + i] = (uint8_t)(i * 37 + i / 16 * 101);
  for (int i = 0; i < TRAIN; ++i) labels[8 + i] = (uint8_t)(i % CLASSES);
  FUZZ_CHECK(niti_system.mkdir(fuzz_at("data"), 0777) == 0);
  for (int test = 0; test < 2; ++test) {
    (void)fuzz_put(test ? "data/t10k-images-idx3-ubyte" : "data/train-images-idx3-ubyte", images, sizeof images);
    (void)fuzz_put(test ? "data/t10k-labels-idx1-ubyte" : "data/train-labels-idx1-ubyte", labels, sizeof labels);
  }
  FUZZ_CHECK(niti_locate(&where, fuzz_put("tiny.yaml", recipe, sizeof recipe - 1)) == NITI_OK);
  FUZZ_CHECK(niti_location_weights(&checkpoint, &where) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_set(checkpoint, "recipe", recipe) == NITI_OK); /* as short as it may be: every case reads it */
  FUZZ_CHECK(niti_checkpoint_save(checkpoint, fuzz_at("tiny.safetensors")) == NITI_OK);
  niti_checkpoint_close(checkpoint);
  niti_location_close(&where);
  return 0;
}

/* ---- the log, read again ---- */

typedef struct Log {
  const char *at;
  long images;            /* how many there are, or ANY */
  int line, steps, mu;    /* mu: the last one; -1: none */
  char parts[2][LOG_MAX]; /* written anew: what comes before line `cut`, and the rest */
  size_t used[2];
} Log;

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* The next word of the line; false: there is none. */
static bool take_word(Log *log, const char **word, size_t *length) {
  while (is_blank(*log->at)) ++log->at;
  *word = log->at;
  while (*log->at && *log->at != '\n' && !is_blank(*log->at)) ++log->at;
  *length = (size_t)(log->at - *word);
  return *length > 0;
}

/* Decimal digits up to `end`, below the limit (ANY: any). */
static bool is_number(long *out, const char *from, const char *end, long limit) {
  *out = 0;
  for (const char *p = from; p < end; ++p) {
    if (*p < '0' || *p > '9') return false;
    *out = *out < limit ? *out * 10 + *p - '0' : limit;
  }
  return end > from && (*out < limit || limit == ANY);
}

static void write_numbers(Log *log, int part, const char *before, long a, const char *between, long b) {
  char *to = log->parts[part] + log->used[part];
  const size_t left = LOG_MAX - log->used[part];
  log->used[part] += (size_t)snprintf(to, left, "%s%ld%s%ld", before, a, between, b);
  FUZZ_CHECK(log->used[part] + 1 < LOG_MAX);
}

static void end_line(Log *log, int part) { log->parts[part][log->used[part]++] = '\n'; }

static bool take_rate(Log *log, int part) {
  const char *word, *more;
  size_t length, rest;
  long mu;
  if (!take_word(log, &word, &length) || !is_number(&mu, word, word + length, MU_MAX + 1) || take_word(log, &more, &rest))
    return false;
  log->mu = (int)mu;
  write_numbers(log, part, "mu\t", mu / 10, "", mu % 10);
  end_line(log, part);
  return true;
}

static bool take_line(Log *log, int part) {
  const char *word;
  size_t length;
  int images = 0;
  if (!take_word(log, &word, &length)) return true;
  if (*word == '#') {
    log->at += strcspn(log->at, "\n");
    return true;
  }
  if (length == 2 && memcmp(word, "mu", 2) == 0) return take_rate(log, part);
  do {
    const char *end = word + length, *colon = memchr(word, ':', length);
    long image, label;
    if (images++ == BATCH || !colon || !is_number(&image, word, colon, log->images) ||
        !is_number(&label, colon + 1, end, CLASSES))
      return false;
    write_numbers(log, part, images > 1 ? " " : "", image, ":", label);
  } while (take_word(log, &word, &length));
  end_line(log, part);
  ++log->steps;
  return true;
}

/* False: log->line is wrong. */
static bool read_lines(Log *log, const char *text, int cut, long images) {
  log->at = text;
  log->images = images;
  log->line = log->steps = 0;
  log->mu = -1;
  log->used[0] = log->used[1] = 0;
  for (;; ++log->at) {
    ++log->line;
    if (!take_line(log, log->line >= cut)) return false;
    if (!*log->at) return true;
  }
}

/* The whole log is read before the data is opened, and again with it. */
static bool read_log(Log *log, const char *text, int cut) {
  return read_lines(log, text, cut, ANY) && read_lines(log, text, cut, TRAIN);
}

/* ---- what came of it ---- */

static NitiImportResult train(const char *network, const char *log, size_t size, const char *out) {
  NitiImportResult result;
  const char *path = fuzz_put("part", log, size);
  FUZZ_CHECK(niti_replay(&result, path, network, fuzz_at("data"), out, &device) == NITI_OK);
  return result;
}

static void check_parts(const Log *log, const NitiImportResult *whole) {
  const char *half = fuzz_at("half.safetensors"), *out = fuzz_at("again.safetensors");
  (void)train(fuzz_at("tiny.safetensors"), log->parts[0], log->used[0], half);
  const NitiImportResult again = train(half, log->parts[1], log->used[1], out);
  NitiCheckpoint *checkpoint;
  char hash[65];
  FUZZ_CHECK(again.steps == whole->steps && again.mu == whole->mu && strcmp(again.hash, whole->hash) == 0);
  FUZZ_CHECK(whole->steps == log->steps && whole->mu == (log->mu < 0 ? 3 : log->mu));
  FUZZ_CHECK(niti_checkpoint_load(&checkpoint, out) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_hash(checkpoint, hash) == NITI_OK && strcmp(hash, whole->hash) == 0);
  niti_checkpoint_close(checkpoint);
  (void)niti_system.unlink(half);
  (void)niti_system.unlink(out);
  (void)niti_system.unlink(fuzz_at("part"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Log log;
  NitiImportResult result;
  char place[512];
  if (size < 1) return 0;
  const int cut = *data++;
  char *text = fuzz_text(data, --size);
  const bool good = read_log(&log, text, cut), zero = strlen(text) < size;
  if (log.steps <= STEPS_MAX) {
    const char *path = fuzz_put("log", text, size);
    const NitiStatus status =
        fuzz_status(niti_replay(&result, path, fuzz_at("tiny.safetensors"), fuzz_at("data"), NULL, &device));
    FUZZ_CHECK((status == NITI_OK) == (good && !zero));
    (void)snprintf(place, sizeof place, zero ? "%s: byte " : "%s:%d: ", path, log.line);
    if (status == NITI_OK)
      check_parts(&log, &result);
    else
      FUZZ_CHECK(status == NITI_ERROR_FORMAT && strncmp(niti_error(), place, strlen(place)) == 0);
    (void)niti_system.unlink(fuzz_at("log"));
  }
  free(text);
  return 0;
}
