/* What comes back from devices, which may be anything: dumps for `import`, made by hand from docs, and logs for `replay`. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "export/import.h"
#include "export/source.h"
#include "fail_memory.h"
#include "io/checkpoint.h"
#include "train/locate.h"
#include "train/snapshot.h"

enum { TRAINED = 54, SLOT = 128, HEADER_AT = 64 }; /* 3 x 16 and 2 x 3 weights, filled up to 64 bytes, and a header of 64 */

static const char model[] =
    "name: m\ninput: [4, 4, 1]\nclasses: 2\nlayers:\n  - flatten\n  - linear: {out: 3}\n  - relu\n  - linear: {out: classes}\n";
static const char plain[] = "data: {mean: [0.5], std: [0.25]}\nupdate: {kind: niti, mu: 4}\n";
static const NitiDevice device = {.backend = "cpu", .isa = "ref", .threads = 1};

static char *dir, *network;

static void must(NitiStatus status) {
  if (status != NITI_OK) fail_msg("%s", niti_error());
}

static void refused(NitiStatus status, NitiStatus expected, const char *a, const char *b) {
  check_error((int)status, (int)expected, niti_error(), a, b);
}

static void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

/* A checkpoint with initial weights, the recipe that begins like every other and goes on with `more`, and pairs of keys and
 * values, up to NULL. */
static void put_network(const char *path, const char *more, const char *const *pairs) {
  const NitiBackendOptions options = {.name = "cpu", .isa = "ref", .threads = 1};
  NitiRecipe *recipe;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiCheckpoint *c;
  char text[512];
  (void)snprintf(text, sizeof text, "name: r\nmodel: m\nbatch: 2\nepochs: 3\nseed: 5\n%s", more);
  must(niti_recipe_parse(&recipe, text, "recipe", NULL, 0, model));
  must(niti_backend_open(&backend, &options));
  const NitiLowerOptions lowering = niti_recipe_lowering(recipe, 2, true);
  must(niti_network_open(&net, recipe->model, backend, &lowering));
  must(niti_network_init(net, 1));
  must(niti_checkpoint_open(&c));
  must(niti_snapshot_take(c, net));
  must(niti_checkpoint_set(c, "recipe", recipe->text));
  must(niti_checkpoint_set(c, "model", recipe->model->text));
  for (; pairs && *pairs; pairs += 2) must(niti_checkpoint_set(c, pairs[0], pairs[1]));
  must(niti_checkpoint_save(c, path));
  niti_checkpoint_close(c);
  niti_network_close(net);
  niti_backend_close(backend);
  niti_recipe_close(recipe);
}

static int make_dir(void **state) {
  (void)state;
  dir = make_temp();
  network = strdup(path_of("%s/n.safetensors", dir));
  put_network(network, plain, NULL);
  return 0;
}

static int remove_dir(void **state) {
  (void)state;
  free(network);
  remove_temp(dir);
  return 0;
}

/* ---- dumps ---- */

/* CRC-32C as RFC 3720 has it, by its polynomial. */
static uint32_t castagnoli(const uint8_t *bytes, size_t count) {
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < 8 * count; ++i) {
    const uint32_t bit = (uint32_t)(bytes[i / 8] >> i % 8 & 1);
    crc = crc >> 1 ^ ((crc ^ bit) & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

static void put_little(uint8_t *to, uint32_t v) {
  for (int i = 0; i < 4; ++i) to[i] = (uint8_t)(v >> 8 * i);
}

/* Which network a device's slots are of: what the export has written into its code. */
static uint32_t network_number(void) {
  NitiExport e = {.recipe = NULL};
  NitiRecipe *recipe;
  NitiCheckpoint *c;
  must(niti_checkpoint_load(&c, network));
  must(niti_checkpoint_recipe(&recipe, c, network));
  e.recipe = recipe;
  must(niti_export_weights_open(&e, c));
  assert_int_equal(e.report.trained_weights, TRAINED);
  free(e.weights);
  niti_recipe_close(recipe);
  niti_checkpoint_close(c);
  return e.network;
}

static int8_t weight_at(int first, int i) { return (int8_t)((first + 7 * i) % 120 - 60); }

/* Words of a header: magic, arithmetic, network, sequence, step, seed (2), mu, bytes. */
enum { MAGIC, ARITHMETIC, NETWORK, SEQUENCE, STEP, SEED, MU = 7, BYTES, WORDS };

/* A slot with the weights weight_at(first, i); word `which` of its header is `value`. */
static void put_slot(uint8_t *slot, int first, uint32_t sequence, uint32_t step, int which, uint32_t value) {
  uint32_t words[WORDS] = {0x4954494e, 1, network_number(), sequence, step, 11, 1, 6, TRAINED};
  if (which >= 0) words[which] = value;
  memset(slot, 0, SLOT);
  for (int i = 0; i < HEADER_AT; ++i) slot[i] = i < TRAINED ? (uint8_t)weight_at(first, i) : 0xff;
  for (int i = 0; i < WORDS; ++i) put_little(slot + HEADER_AT + 4 * i, words[i]);
  put_little(slot + SLOT - 4, castagnoli(slot, SLOT - 4));
}

static const char *dump(void) { return path_of("%s/dump", dir); }
static const char *out(void) { return path_of("%s/out.safetensors", dir); }

static NitiStatus import(const uint8_t *bytes, size_t size) {
  NitiImportResult result;
  put_file(dump(), bytes, size);
  (void)unlink(out());
  const NitiStatus status = niti_import_dump(&result, dump(), network, out());
  if (status != NITI_OK) assert_int_equal(access(out(), F_OK), -1);
  return status;
}

/* The state with these weights and this step is the newest. */
static void imported(const uint8_t *bytes, size_t size, int first, const char *step) {
  NitiCheckpoint *c;
  must(import(bytes, size));
  must(niti_checkpoint_load(&c, out()));
  assert_string_equal(niti_checkpoint_get(c, "device_step"), step);
  assert_string_equal(niti_checkpoint_get(c, "device_mu"), "6");
  assert_string_equal(niti_checkpoint_get(c, "device_seed"), "4294967307"); /* 2^32 + 11 */
  int at = 0;
  for (size_t i = 0; i < c->tensor_count; ++i) { /* by name, as in the slot */
    size_t count = 1;
    for (int k = 0; k < c->tensors[i].ndim; ++k) count *= c->tensors[i].dims[k];
    for (size_t k = 0; k < count; ++k) assert_int_equal(((const int8_t *)c->tensors[i].data)[k], weight_at(first, at++));
  }
  assert_int_equal(at, TRAINED);
  niti_checkpoint_close(c);
}

static void dumps(void **state) {
  (void)state;
  uint8_t bytes[4 * SLOT];
  memset(bytes, 0xff, sizeof bytes);
  put_slot(bytes, 1, 1, 9, -1, 0);
  imported(bytes, SLOT, 1, "9");
  imported(bytes, SLOT + 50, 1, "9"); /* of the second slot, which is erased, some */
  imported(bytes, 2 * SLOT, 1, "9");
  memset(bytes + SLOT, 0, SLOT);
  imported(bytes, SLOT + 100, 1, "9"); /* erased to zeros */
  bytes[SLOT + 99] = 1;
  refused(import(bytes, SLOT + 100), NITI_ERROR_FORMAT, "228 bytes, which end within a slot", dump());
  bytes[SLOT] = 0x55;
  refused(import(bytes, SLOT + 50), NITI_ERROR_FORMAT, "end within a slot", "expected one slot of 128 bytes");
  imported(bytes, 2 * SLOT, 1, "9");
  refused(import(bytes, SLOT - 1), NITI_ERROR_FORMAT, "127 bytes", "end within a slot");
  refused(import(bytes, 0), NITI_ERROR_FORMAT, "0 bytes", "end within a slot");

  memset(bytes, 0xff, SLOT);
  put_slot(bytes + 10, 2, 5, 4294967295u, -1, 0);
  imported(bytes, SLOT + 10, 2, "4294967295");
  bytes[3] = 7;
  refused(import(bytes, SLOT + 10), NITI_ERROR_FORMAT, "end within a slot", "138 bytes");
  put_slot(bytes, 3, UINT32_MAX, 20, -1, 0);
  put_slot(bytes + SLOT, 4, 0, 21, -1, 0); /* its number comes after the largest */
  imported(bytes, 2 * SLOT, 4, "21");
  put_slot(bytes + SLOT, 4, UINT32_MAX - 1, 19, -1, 0);
  imported(bytes, 2 * SLOT, 3, "20");
  memcpy(bytes + 2 * SLOT, bytes + SLOT + HEADER_AT, 4); /* the magic number where a slot would begin to end */
  refused(import(bytes, 2 * SLOT + 4), NITI_ERROR_FORMAT, "end within a slot", "260 bytes");
  bytes[0] ^= 1;
  bytes[SLOT] ^= 1;
  refused(import(bytes, 2 * SLOT), NITI_ERROR_FORMAT, "no whole state of this network", dump());
}

static void headers_of_dumps(void **state) {
  (void)state;
  static const struct {
    int word;
    uint32_t value;
    const char *says;
  } cases[] = {{MAGIC, 0x4954494f, "no whole state"}, {ARITHMETIC, 2, "no whole state"}, {NETWORK, 7, "no whole state"},
               {BYTES, 53, "no whole state"},         {MU, 31, "is 31 (expected"},       {MU, UINT32_MAX, "is -1 (expected"}};
  uint8_t bytes[3 * SLOT];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    put_slot(bytes, 1, 1, 9, cases[i].word, cases[i].value);
    refused(import(bytes, SLOT), NITI_ERROR_FORMAT, cases[i].says, dump());
  }
  put_slot(bytes, 1, 1, 9, -1, 0);
  memset(bytes + SLOT, 0xff, 2 * SLOT);
  for (int i = 0; i < 5; ++i) memcpy(bytes + SLOT + 36 * i, bytes + HEADER_AT, 36); /* five stale headers after the slot's */
  imported(bytes, SLOT + 144 + 64, 1, "9");                                         /* of 2.6 slots' bytes: six are allowed */
  memcpy(bytes + SLOT + 180, bytes + HEADER_AT, 36);
  refused(import(bytes, 2 * SLOT + 127), NITI_ERROR_FORMAT, "byte 308: more than 6 headers", "one per slot of 128 bytes");
}

static void files_of_an_import(void **state) {
  (void)state;
  NitiImportResult result;
  uint8_t bytes[SLOT];
  put_slot(bytes, 1, 1, 9, -1, 0);
  put_file(dump(), bytes, SLOT);
  refused(niti_import_dump(&result, path_of("%s/none", dir), network, out()), NITI_ERROR_FILE, "none", "cannot open");
  refused(niti_import_dump(&result, dump(), path_of("%s/none", dir), out()), NITI_ERROR_FILE, "none", "cannot open");
  refused(niti_import_dump(&result, dump(), network, network), NITI_ERROR_ARGUMENT, network, "this is the network");
  refused(niti_import_dump(&result, dump(), network, dump()), NITI_ERROR_ARGUMENT, dump(), "this is what is read");
  refused(niti_import_dump(&result, dump(), network, path_of("%s/none/out", dir)), NITI_ERROR_FILE, "none/out", "cannot");
  assert_int_equal(truncate(dump(), ((off_t)1 << 30) + 1), 0);
  refused(niti_import_dump(&result, dump(), network, out()), NITI_ERROR_FORMAT, dump(), "1073741824");

  NitiCheckpoint *c;
  char *bare = strdup(path_of("%s/bare.safetensors", dir));
  static int8_t w[1] = {1};
  must(niti_checkpoint_open(&c));
  must(niti_checkpoint_add(c, "w.weight", NITI_I8, 1, (const uint32_t[]){1}, 0, w));
  must(niti_checkpoint_save(c, bare));
  refused(niti_import_dump(&result, dump(), bare, out()), NITI_ERROR_FORMAT, bare, "'recipe'");
  must(niti_checkpoint_set(c, "recipe", "name: r\nmodel: m\n"));
  must(niti_checkpoint_set(c, "model", model));
  must(niti_checkpoint_set(c, "arithmetic", NITI_ARITHMETIC));
  must(niti_checkpoint_save(c, bare));
  refused(niti_import_dump(&result, dump(), bare, out()), NITI_ERROR_FORMAT, bare, "is missing or not int8");
  niti_checkpoint_close(c);
  put_file(bare, "\x02\0\0\0\0\0\0\0{}", 9);
  refused(niti_import_dump(&result, dump(), bare, out()), NITI_ERROR_FORMAT, bare, "");
  free(bare);
}

static NitiStatus import_again(const char *path) {
  NitiImportResult result;
  const NitiStatus status = niti_import_dump(&result, path, network, path_of("%s/again.safetensors", dir));
  if (status == NITI_OK && (result.steps != 9 || result.mu != 6)) fail_msg("another state");
  return status;
}

static void imports_without_memory(void **state) {
  (void)state;
  uint8_t bytes[SLOT];
  put_slot(bytes, 1, 1, 9, -1, 0);
  put_file(dump(), bytes, SLOT);
  char *path = strdup(dump()); /* path_of has buffers for a while only */
  fail_each("an import", import_again, path);
  free(path);
}

/* ---- logs ---- */

static uint8_t pixel(size_t i) { return (uint8_t)(i * 37 + i / 16 * 11); }
static uint8_t label(size_t i) { return (uint8_t)(i % 2); }

static NitiStatus replay(NitiImportResult *result, const char *log, const char *from, const char *data, const char *to) {
  put_text(path_of("%s/log", dir), log);
  return niti_replay(result, path_of("%s/log", dir), from, data, to, &device);
}

/* A log without steps leaves the weights; one that is replayed in two parts ends as in one. */
static void logs(void **state) {
  (void)state;
  char *data = put_idx_folder(6, 3, 4, pixel, label);
  NitiImportResult none, whole, half;
  char hash[65];
  NitiCheckpoint *c;
  must(niti_checkpoint_load(&c, network));
  must(niti_checkpoint_hash(c, hash));
  niti_checkpoint_close(c);
  must(replay(&none, "# nothing\n \t\r\n\nmu 7\n", network, data, NULL));
  assert_string_equal(none.hash, hash);
  assert_true(none.steps == 0 && none.mu == 7);
  must(replay(&whole, "0:0 1:1\n2:0\n#x\nmu 2\r\n5:1 0:1\n3:0", network, data, NULL));
  assert_true(whole.steps == 4 && whole.mu == 2);
  assert_string_not_equal(whole.hash, hash);
  must(replay(&half, "0:0 1:1\n2:0\n#x\nmu 2\n", network, data, out()));
  assert_true(half.steps == 2 && half.mu == 2);
  must(replay(&half, "5:1 0:1\n3:0\n", out(), data, NULL));
  assert_true(half.steps == 4 && half.mu == 2);
  assert_string_equal(half.hash, whole.hash);
  remove_temp(data);
}

static void lines_of_logs(void **state) {
  (void)state;
  static const char pair[] = "expected SAMPLE:LABEL", class[] = "no such class", sample[] = "no such sample";
  static const struct {
    const char *line, *says;
  } cases[] = {
      {"3", pair},
      {":1", pair},
      {"3:", pair},
      {"3:1x", pair},
      {"x:1", pair},
      {"6:0", sample},
      {"-1:0", sample},
      {"3:2", class},
      {"3:-1", class},
      {"mu", "a learning rate from 0 to 30"},
      {"mu 31", "'31': expected a"},
      {"mu 3x", "'3x'"},
      {"mu x", "'x'"},
      {"mu -3", "'-3'"},
      {"mu 99999999999999999999", "'9999"},
      {"mu 3 4", "'4': expected nothing"},
      {"0:0 1:1 2:0", "more images than the network's batch"},
  };
  char *data = put_idx_folder(6, 3, 4, pixel, label);
  NitiImportResult result;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    refused(replay(&result, path_of("0:0\n\n%s\n", cases[i].line), network, data, out()), NITI_ERROR_FORMAT,
            "log:3: ", cases[i].says);
    assert_int_equal(access(out(), F_OK), -1);
  }
  char *log = strdup(path_of("%s/log", dir));
  put_file(log, "0:0\0", 4);
  refused(niti_replay(&result, log, network, data, NULL, &device), NITI_ERROR_FORMAT, log, "byte 3: a zero byte");
  assert_int_equal(truncate(log, (1 << 28) + 1), 0);
  refused(niti_replay(&result, log, network, data, NULL, &device), NITI_ERROR_FORMAT, log, "268435456");
  refused(niti_replay(&result, path_of("%s/none", dir), network, data, NULL, &device), NITI_ERROR_FILE, "none", "cannot open");
  refused(niti_replay(&result, log, network, data, network, &device), NITI_ERROR_ARGUMENT, network, "this is the network");
  refused(niti_replay(&result, log, network, data, log, &device), NITI_ERROR_ARGUMENT, log, "this is what is read");
  refused(replay(&result, "0:0\n", network, data, path_of("%s/none/out", dir)), NITI_ERROR_FILE, "none/out", "cannot");
  const NitiDevice unknown = {.backend = "abacus"};
  refused(niti_replay(&result, log, network, data, NULL, &unknown), NITI_ERROR_UNSUPPORTED, "abacus", "");
  free(log);
  remove_temp(data);
}

/* What a checkpoint says of itself. */
static void networks_of_logs(void **state) {
  (void)state;
  static const char niti[] = "update: {kind: niti, mu: 4}\n", mu[] = "device_mu",
                    most[] = "(expected a whole number from 0 to 30)";
  static const struct {
    const char *recipe, *key, *value;
    NitiStatus status;
    const char *a, *b;
  } cases[] = {
      {niti, NULL, NULL, NITI_ERROR_UNSUPPORTED, "a replay needs data.mean", "x.safetensors"},
      {"data: {type: int16, mean: [0.5], std: [0.25]}\nupdate: {kind: niti, mu: 4}\n", NULL, NULL, NITI_ERROR_UNSUPPORTED,
       "data.type int16 cannot be replayed", "x.safetensors"},
      {"data: {mean: [0.5], std: [0.25]}\nupdate: {kind: sgd, lr: 0.1}\n", NULL, NULL, NITI_ERROR_UNSUPPORTED,
       "update sgd cannot be replayed", "x.safetensors"},
      {"data: {mean: [0.5], std: [0.25], flip: true}\nupdate: {kind: niti, mu: 4}\n", NULL, NULL, NITI_ERROR_UNSUPPORTED,
       "a replay takes images as they are", "x.safetensors"},
      {"data: {mean: [0.5], std: [0.25]}\nupdate: {kind: niti, mu: 3.5}\n", NULL, NULL, NITI_ERROR_UNSUPPORTED,
       "update.mu, which is 3.5", "cannot be replayed"},
      {plain, "arithmetic", "9.9", NITI_ERROR_UNSUPPORTED, "arithmetic 9.9", "x.safetensors"},
      {plain, mu, "31", NITI_ERROR_FORMAT, "device_mu is '31'", most},
      {plain, mu, "-1", NITI_ERROR_FORMAT, "device_mu is '-1'", most},
      {plain, mu, "x", NITI_ERROR_FORMAT, "device_mu is 'x'", most},
      {plain, mu, "3x", NITI_ERROR_FORMAT, "device_mu is '3x'", most},
      {plain, mu, "99999999999999999999", NITI_ERROR_FORMAT, "device_mu is '9999", most},
      {plain, "device_step", "4294967296", NITI_ERROR_FORMAT, "device_step is '4294967296'", "from 0 to 4294967295"},
      {plain, "device_seed", "", NITI_ERROR_FORMAT, "device_seed is ''", "from 0 to 18446744073709551615"},
      {plain, "step", "x", NITI_ERROR_FORMAT, "step is 'x'", "from 0 to 4294967295"},
      {plain, "train_set_images", "2147483648", NITI_ERROR_FORMAT, "train_set_images is '2147483648'", "from 0 to 2147483647"},
  };
  char *path = strdup(path_of("%s/x.safetensors", dir)), *data = put_idx_folder(6, 3, 4, pixel, label);
  NitiImportResult result;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    const char *const pairs[] = {cases[i].key, cases[i].value, NULL};
    put_network(path, cases[i].recipe, cases[i].key ? pairs : NULL);
    refused(replay(&result, "0:0\n", path, data, NULL), cases[i].status, cases[i].a, cases[i].b);
  }
  const char *const late[] = {"device_step", "4294967295", NULL}, *const stepped[] = {"step", "4", NULL};
  put_network(path, plain, late);
  refused(replay(&result, "0:0\n", path, data, NULL), NITI_ERROR_FORMAT, "log:1: one step too many", "at most 4294967295");
  put_network(path, plain, stepped); /* of how many images is not said */
  must(replay(&result, "0:0\n", path, data, NULL));
  assert_true(result.steps == 1 && result.mu == 4);
  /* 20 steps, cut to 10, of which step 7 was the last: from step 5 on mu is 2, or 3 where all 20 are its run */
  static const char schedule[] = "update: {kind: niti, mu: [{epoch: 0, mu: 3}, {at: 50%, mu: 2}]}\n";
  const char *const seventh[] = {"step", "7", "train_set_images", "13", NULL};
  for (int cut = 0; cut < 2; ++cut) {
    put_network(path, path_of("data: {mean: [0.5], std: [0.25]}\nmax_steps: %d\n%s", cut ? 10 : 1000, schedule), seventh);
    must(replay(&result, "", path, data, NULL));
    assert_int_equal(result.mu, cut ? 2 : 3);
  }
  const char *yaml = path_of("%s/recipe.yaml", dir);
  put_text(yaml, "name: r\nmodel: lenet5-none\n");
  refused(replay(&result, "0:0\n", yaml, data, NULL), NITI_ERROR_FORMAT, "recipe.yaml:2:8: model", "lenet5-none");
  put_file(path, "\x02\0\0\0\0\0\0\0{}", 9);
  refused(replay(&result, "0:0\n", path, data, NULL), NITI_ERROR_FORMAT, path, "");
  put_network(path, plain, NULL);
  NitiCheckpoint *c, *other;
  must(niti_checkpoint_load(&c, path));
  must(niti_checkpoint_open(&other)); /* the first tensor alone */
  const NitiCheckpointTensor *t = &c->tensors[0];
  must(niti_checkpoint_add(other, t->name, t->dtype, t->ndim, t->dims, t->exponent, t->data));
  const char *const keys[] = {"recipe", "model", "arithmetic"};
  for (int i = 0; i < 3; ++i) must(niti_checkpoint_set(other, keys[i], niti_checkpoint_get(c, keys[i])));
  must(niti_checkpoint_save(other, path));
  niti_checkpoint_close(c);
  niti_checkpoint_close(other);
  refused(replay(&result, "0:0\n", path, data, NULL), NITI_ERROR_FORMAT, path, "linear");
  free(path);
  remove_temp(data);
}

static void data_of_logs(void **state) {
  (void)state;
  NitiImportResult result;
  char *small = put_idx_folder(6, 3, 3, pixel, label), *large = put_idx_folder(6, 3, 5, pixel, label);
  refused(replay(&result, "0:0\n", network, small, NULL), NITI_ERROR_MODEL, small, "images of 3x3x1 do not give");
  must(replay(&result, "0:0\n", network, large, NULL)); /* the middle of each */
  assert_int_equal(result.steps, 1);
  refused(replay(&result, "0:0\n", network, path_of("%s/none", dir), NULL), NITI_ERROR_FILE, "none", "");
  refused(replay(&result, "0:0\n", network, NULL, NULL), NITI_ERROR_ARGUMENT, "data", "");
  remove_temp(small);
  remove_temp(large);
}

static char *again_data;

static NitiStatus replay_again(const char *path) {
  NitiImportResult result;
  const NitiStatus status = niti_replay(&result, path, network, again_data, path_of("%s/again.safetensors", dir), &device);
  if (status == NITI_OK && (result.steps != 1 || result.mu != 2)) fail_msg("another state");
  return status;
}

static void replays_without_memory(void **state) {
  (void)state;
  again_data = put_idx_folder(6, 3, 4, pixel, label);
  char *log = strdup(path_of("%s/log", dir));
  put_text(log, "mu 2\n0:0 1:1\n");
  fail_each("a replay", replay_again, log);
  free(log);
  remove_temp(again_data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(dumps, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(headers_of_dumps, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(files_of_an_import, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(imports_without_memory, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(logs, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(lines_of_logs, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(networks_of_logs, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(data_of_logs, make_dir, remove_dir),
      cmocka_unit_test_setup_teardown(replays_without_memory, make_dir, remove_dir),
  };
  spare_json();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
