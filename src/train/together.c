/* What the ranks of a run tell each other. */
#define _GNU_SOURCE
#include "train/together.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "platform/file.h"
#include "platform/sha256.h"
#include "platform/system.h"

enum { LIMIT_PERCENT = 150, SECONDS_LEAST = 2 };

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for what the ranks exchange"); }

/* Every rank sums a part of the values, of as many images; what they hold is compared later. */
static NitiStatus share_sums(NitiRun *run) {
  NitiRanks *ranks = run->options.ranks;
  const NitiDataset *data = run->dataset;
  char text[NITI_RANK_TEXT_MAX];
  (void)snprintf(text, sizeof text, "%s of %s, %" PRId64 " of them", niti_dataset_kind(data),
                 niti_data_type_name(niti_dataset_type(data)), niti_dataset_count(data, NITI_TRAIN));
  NITI_TRY(niti_ranks_same(ranks, "training images", text));
  if (niti_dataset_is_folder(data)) return NITI_OK;
  const size_t count = 2 * (size_t)niti_dataset_shape(run->dataset).c;
  NITI_TRY(niti_run_agree(run, niti_dataset_sum(run->dataset, niti_ranks_rank(ranks), niti_ranks_size(ranks))));
  niti_ranks_reduce(ranks, niti_dataset_sums(run->dataset), count, NITI_REDUCE_SUM_S64);
  return niti_ranks_check(ranks);
}

NitiStatus niti_together_statistics(NitiRun *run, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]) {
  NitiRanks *ranks = run->options.ranks;
  if (ranks) NITI_TRY(share_sums(run));
  const size_t bytes = (size_t)niti_dataset_shape(run->dataset).c * sizeof *mean;
  const NitiStatus status = niti_run_leads(run) ? niti_dataset_statistics(run->dataset, mean, std) : NITI_OK;
  NITI_TRY(niti_run_agree(run, status));
  NITI_TRY(niti_ranks_broadcast(ranks, mean, bytes));
  return niti_ranks_broadcast(ranks, std, bytes);
}

/* ---- hashes of files ---- */

static void text_hash(char out[65], const char *text) { niti_sha256_of(out, text, strlen(text)); }

/* Of the ranks of this host that have the same text, the one whose turn it is; they count from 0. */
static NitiStatus find_hasher(int *out, NitiRanks *ranks, const char *text, int turn) {
  const int size = niti_ranks_size(ranks);
  const char *host = niti_ranks_host(ranks, niti_ranks_rank(ranks));
  int mates = 0, number = 0;
  char own[65], (*all)[65] = calloc((size_t)size, sizeof *all);
  if (!all) return out_of_memory();
  text_hash(own, text);
  const NitiStatus status = niti_ranks_gather(ranks, all, own, sizeof own);
  for (int i = 0; i < size; ++i) mates += strcmp(niti_ranks_host(ranks, i), host) == 0 && strcmp(all[i], own) == 0;
  for (int i = 0; i < size && mates > 0; ++i) {
    if (strcmp(niti_ranks_host(ranks, i), host) == 0 && strcmp(all[i], own) == 0 && number++ == turn % mates) *out = i;
  }
  free(all);
  return status;
}

/* hash = that of rank `from`. */
static NitiStatus take_hash(char hash[65], NitiRanks *ranks, int from) {
  char(*all)[65] = calloc((size_t)niti_ranks_size(ranks), sizeof *all);
  if (!all) return out_of_memory();
  const NitiStatus status = niti_ranks_gather(ranks, all, hash, sizeof *all);
  memcpy(hash, all[from], sizeof *all);
  free(all);
  return status;
}

/* By which rank each split is hashed for this one: every rank for itself where it cannot say which files it has. */
static NitiStatus find_hashers(int hashers[NITI_SPLITS], const NitiRun *run, unsigned splits) {
  char text[65 + PATH_MAX], files[65];
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const bool wanted = splits & NITI_SPLIT_BIT(split);
    if (wanted) niti_dataset_files(run->dataset, (NitiSplit)split, files);
    if (!wanted) /* by this rank: another may have other splits */
      (void)snprintf(text, sizeof text, "none");
    else if (files[0])
      (void)snprintf(text, sizeof text, "%s %s", files, run->data_path);
    else
      (void)snprintf(text, sizeof text, "rank %d", niti_ranks_rank(run->options.ranks));
    NITI_TRY(find_hasher(&hashers[split], run->options.ranks, text, split));
  }
  return NITI_OK;
}

NitiStatus niti_together_hash(NitiRun *run, unsigned splits) {
  NitiRanks *ranks = run->options.ranks;
  int hashers[NITI_SPLITS] = {0};
  NitiStatus status = NITI_OK;
  if (ranks) NITI_TRY(find_hashers(hashers, run, splits));
  for (int split = 0; split < NITI_SPLITS && status == NITI_OK; ++split) {
    if ((splits & NITI_SPLIT_BIT(split)) && hashers[split] == niti_ranks_rank(ranks))
      status = niti_dataset_hash(run->dataset, (NitiSplit)split, run->inputs.sha256[split]);
  }
  NITI_TRY(niti_run_agree(run, status));
  for (int split = 0; ranks && split < NITI_SPLITS; ++split)
    NITI_TRY(take_hash(run->inputs.sha256[split], ranks, hashers[split]));
  return NITI_OK;
}

/* The SHA-256 of one of niti's files, computed once where ranks of a host have the same one. */
static NitiStatus hash_file(char hash[65], NitiRanks *ranks, NitiRankFile which) {
  char file[NITI_RANK_TEXT_MAX];
  int hasher = 0;
  niti_ranks_file(ranks, which, file);
  NITI_TRY(find_hasher(&hasher, ranks, file, 0));
  const bool own = hasher == niti_ranks_rank(ranks);
  NITI_TRY(niti_ranks_agree(ranks, own ? niti_ranks_file_hash(ranks, which, hash) : NITI_OK));
  return take_hash(hash, ranks, hasher);
}

/* ---- comparing ---- */

static void add_number(NitiFacts *facts, const char *name, int64_t value) {
  char text[32];
  (void)snprintf(text, sizeof text, "%" PRId64, value);
  niti_facts_add(facts, name, text);
}

/* One fact for each line. */
static void add_lines(NitiFacts *facts, const char *what, const char *lines) {
  char name[64], *line = NULL;
  for (int number = 0; lines && *lines && !facts->failed; ++number) {
    const size_t length = strcspn(lines, "\n");
    (void)snprintf(name, sizeof name, "%s %d", what, number);
    facts->failed = asprintf(&line, "'%.*s'", (int)length, lines) < 0;
    if (facts->failed) return;
    niti_facts_add(facts, name, line);
    free(line);
    lines += length + (lines[length] == '\n');
  }
}

NitiStatus niti_together_check_data(const NitiRun *run) {
  static const char *const names[NITI_SPLITS] = {
      [NITI_TRAIN] = "training images", [NITI_TEST] = "test images", [NITI_VALIDATION] = "validation images"};
  const NitiRunInputs *in = &run->inputs;
  NitiFacts facts = {0};
  char text[NITI_RANK_TEXT_MAX];
  for (int split = 0; run->options.ranks && split < NITI_SPLITS; ++split) {
    (void)snprintf(text, sizeof text, "%" PRId64 " of them, SHA-256 %.16s, names %.16s", in->images[split], in->sha256[split],
                   in->names_sha256[split]);
    niti_facts_add(&facts, names[split], text);
  }
  add_lines(&facts, "the name of class", in->classes);
  add_lines(&facts, "the display name of class", run->class_labels);
  return niti_ranks_compare(run->options.ranks, &facts);
}

/* The first rank that has checks; -1: none, or all have. */
static NitiStatus find_checks(int *from, NitiRanks *ranks, bool has) {
  const int size = niti_ranks_size(ranks);
  bool *all = calloc((size_t)size, sizeof *all);
  int count = 0;
  *from = -1;
  if (!all) return out_of_memory();
  const NitiStatus status = niti_ranks_gather(ranks, all, &has, sizeof has);
  for (int i = size; i-- > 0;) {
    if (all[i]) *from = i;
    count += all[i];
  }
  if (count == size) *from = -1;
  free(all);
  return status;
}

static NitiStatus share_checks(const NitiRun *run, NitiSplit split) {
  NitiRanks *ranks = run->options.ranks;
  const size_t stored = (size_t)niti_dataset_stored(run->dataset, split);
  const uint32_t *own = niti_dataset_checks(run->dataset, split);
  int from = -1;
  NITI_TRY(find_checks(&from, ranks, own != NULL));
  if (from < 0) return NITI_OK;
  uint32_t *checks = calloc(stored, sizeof *checks);
  NitiStatus status = niti_run_agree(run, checks ? NITI_OK : out_of_memory());
  if (status == NITI_OK && from == niti_ranks_rank(ranks)) memcpy(checks, own, stored * sizeof *checks);
  if (status == NITI_OK) niti_ranks_reduce(ranks, checks, stored, NITI_REDUCE_SUM_S32); /* the others add zeros */
  if (status == NITI_OK) status = niti_ranks_check(ranks);
  if (status == NITI_OK && !own) status = niti_dataset_set_checks(run->dataset, split, checks);
  free(checks);
  return niti_run_agree(run, status);
}

NitiStatus niti_together_share_checks(const NitiRun *run) {
  for (int split = 0; run->options.ranks && split < NITI_SPLITS; ++split) {
    if (run->inputs.images[split] > 0) NITI_TRY(share_checks(run, (NitiSplit)split));
  }
  return NITI_OK;
}

NitiStatus niti_together_begin(const NitiRun *run, const char *call) {
  const NitiTrainOptions *o = &run->options;
  NitiFacts facts = {0};
  char text[NITI_RANK_TEXT_MAX], hash[65] = "";
  if (!o->ranks) return NITI_OK;
  NITI_TRY(hash_file(hash, o->ranks, NITI_RANK_PROGRAM));
  (void)snprintf(text, sizeof text, "niti %s, SHA-256 %.16s", niti_version(), hash);
  niti_facts_add(&facts, "the program", text);
  NITI_TRY(hash_file(hash, o->ranks, NITI_RANK_PLUGIN));
  (void)snprintf(text, sizeof text, "SHA-256 %.16s", hash);
  niti_facts_add(&facts, "the plugin libniti_mpi.so", text);
  niti_facts_add(&facts, "the call", call);
  niti_facts_add(&facts, "init", o->init ? "one" : "none");
  add_number(&facts, "dry_run", o->dry_run);
  add_number(&facts, "epochs", o->epochs);
  add_number(&facts, "save_every", o->save_every);
  add_number(&facts, "test_every", o->test_every);
  add_number(&facts, "test_limit", o->test_limit);
  add_number(&facts, "measure_every", o->measure_every);
  return niti_ranks_compare(o->ranks, &facts);
}

NitiStatus niti_together_check(const NitiRun *run) {
  const NitiRecipe *recipe = run->recipe;
  NitiFacts facts = {0};
  char text[NITI_RANK_TEXT_MAX], hash[65];
  if (!run->options.ranks) return NITI_OK;
  text_hash(hash, recipe->text);
  (void)snprintf(text, sizeof text, "%.64s, SHA-256 %.16s, seed %" PRIu64, recipe->name, hash, recipe->seed);
  niti_facts_add(&facts, "the recipe", text);
  text_hash(hash, recipe->model->text);
  (void)snprintf(text, sizeof text, "%.64s, SHA-256 %.16s", recipe->model->name, hash);
  niti_facts_add(&facts, "the model", text);
  return niti_ranks_compare(run->options.ranks, &facts);
}

/* ---- weights and checkpoints ---- */

static NitiStatus share_tensor(const NitiRun *run, int32_t t) {
  NitiNetwork *net = run->net;
  const NitiTensorDesc *desc = &net->program->tensors[t];
  const size_t bytes = niti_tensor_count(desc, 0) * niti_dtype_bytes(desc->dtype);
  int32_t exponent = 0;
  void *elements = malloc(bytes);
  if (!elements) return out_of_memory();
  NitiStatus status = niti_executable_read(net->main, t, 0, elements, &exponent);
  if (status == NITI_OK) status = niti_ranks_broadcast(run->options.ranks, elements, bytes);
  if (status == NITI_OK) status = niti_ranks_broadcast(run->options.ranks, &exponent, sizeof exponent);
  if (status == NITI_OK) status = niti_executable_write(net->main, t, 0, elements, &exponent);
  free(elements);
  return status;
}

NitiStatus niti_together_weights(const NitiRun *run) {
  for (int32_t t = 0; run->options.ranks && t < run->net->program->tensor_count; ++t) {
    const NitiRole role = run->net->program->tensors[t].role;
    if (role == NITI_ROLE_WEIGHT || role == NITI_ROLE_STATE) NITI_TRY(share_tensor(run, t));
  }
  return NITI_OK;
}

/* Loads a checkpoint from a file's bytes; `source` is for messages. */
static NitiStatus load_bytes(NitiCheckpoint **out, const char *bytes, size_t size, const char *source) {
  char path[64];
  const int file = memfd_create("niti checkpoint", MFD_CLOEXEC);
  if (file < 0) return niti_fail_errno("checkpoint", "keep a copy in memory");
  NitiStatus status = NITI_OK;
  for (size_t at = 0; at < size && status == NITI_OK;) {
    const ssize_t written = niti_system.write(file, bytes + at, size - at);
    if (written < 0) status = niti_fail_errno("checkpoint", "keep a copy in memory");
    at += written > 0 ? (size_t)written : 0;
  }
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  if (status == NITI_OK) status = niti_checkpoint_load(out, path);
  (void)niti_system.close(file);
  if (status != NITI_OK) return status;
  char *copy = strdup(source);
  if (!copy) return out_of_memory();
  free((*out)->source);
  (*out)->source = copy;
  return NITI_OK;
}

/* bytes[count] of rank 0, with a zero byte behind them; the others allocate them. */
static NitiStatus share_bytes(char **bytes, uint64_t *count, NitiRanks *ranks) {
  NITI_TRY(niti_ranks_broadcast(ranks, count, sizeof *count));
  if (!*bytes && *count < SIZE_MAX / 2) *bytes = calloc(1, (size_t)*count + 1);
  return *bytes ? niti_ranks_broadcast(ranks, *bytes, (size_t)*count) : out_of_memory();
}

static NitiStatus read_source(char **source, char **bytes, uint64_t *count, const NitiCheckpoint *checkpoint) {
  size_t size = 0;
  *source = strdup(niti_checkpoint_source(checkpoint));
  if (!*source) return out_of_memory();
  const NitiStatus status = niti_file_read(bytes, &size, *source, SIZE_MAX / 2);
  *count = size;
  return status;
}

NitiStatus niti_together_checkpoint(NitiCheckpoint **checkpoint, NitiRanks *ranks) {
  char *bytes = NULL, *source = NULL;
  uint64_t count = 0, length = 0;
  if (!ranks) return NITI_OK;
  NitiStatus status = niti_ranks_agree(ranks, *checkpoint ? read_source(&source, &bytes, &count, *checkpoint) : NITI_OK);
  length = source ? strlen(source) : 0;
  if (status == NITI_OK) status = share_bytes(&source, &length, ranks);
  if (status == NITI_OK) status = share_bytes(&bytes, &count, ranks);
  if (status == NITI_OK)
    status = niti_ranks_agree(ranks, *checkpoint ? NITI_OK : load_bytes(checkpoint, bytes, (size_t)count, source));
  free(source);
  free(bytes);
  return status;
}

NitiStatus niti_together_told(const NitiRun *run, bool *truth) {
  return niti_ranks_broadcast(run->options.ranks, truth, sizeof *truth);
}

void niti_together_confusion(const NitiRun *run) {
  const NitiConfusion *c = run->confusion;
  if (c) niti_ranks_reduce(run->options.ranks, c->counts, (size_t)c->classes * (size_t)c->classes, NITI_REDUCE_SUM_S64);
}

/* ---- pace ---- */

static int64_t per_image(const NitiPace *pace) { return pace->busy / (pace->images > 0 ? pace->images : 1); }

/* Shares differ by an image, which is much of a small one, while a share of one image takes longer than half a share of two: so
 * both the whole time and that of an image have to be far from those of the fastest rank. */
static bool is_slow(const NitiPace *pace, const NitiPace *fastest) {
  return pace->busy - fastest->busy >= SECONDS_LEAST * INT64_C(1000000000) && pace->busy * 100 >= fastest->busy * LIMIT_PERCENT &&
         per_image(pace) * 100 >= per_image(fastest) * LIMIT_PERCENT;
}

enum { NAMED = 4 };

void niti_together_name_slow(char *text, size_t size, const NitiRanks *ranks, const NitiPace *paces, int count) {
  int fastest = 0, slowest = 0, slow = 0;
  size_t used = 0;
  text[0] = 0;
  for (int i = 1; i < count; ++i) {
    if (paces[i].busy < paces[fastest].busy) fastest = i;
    if (paces[i].busy > paces[slowest].busy) slowest = i;
  }
  for (int i = 0; i < count; ++i) {
    if (!is_slow(&paces[i], &paces[fastest]) || slow++ >= NAMED || used >= size) continue;
    used += (size_t)snprintf(text + used, size - used, "%srank %d (%s)", slow > 1 ? ", " : "", i, niti_ranks_host(ranks, i));
  }
  if (slow == 0 || used >= size) return;
  const int64_t usual = paces[fastest].busy, tenths = paces[slowest].busy * 10 / (usual > 0 ? usual : 1);
  if (slow > NAMED) used += (size_t)snprintf(text + used, size - used, " and %d more", slow - NAMED);
  if (used >= size) return;
  (void)snprintf(text + used, size - used, " %s up to %" PRId64 ".%" PRId64 " times as long for %s of a batch as rank %d (%s)",
                 slow > 1 ? "take" : "takes", tenths / 10, tenths % 10, slow > 1 ? "their shares" : "its share", fastest,
                 niti_ranks_host(ranks, fastest));
}

NitiStatus niti_together_pace(NitiRun *run, char *text) {
  NitiRanks *ranks = run->options.ranks;
  const size_t size = (size_t)niti_ranks_size(ranks);
  text[0] = 0;
  if (!ranks) return NITI_OK;
  NitiPace *paces = calloc(size, sizeof *paces);
  if (!paces) return out_of_memory();
  const NitiStatus status = niti_ranks_gather(ranks, paces, &run->pace, sizeof *paces);
  if (status == NITI_OK && niti_run_leads(run) && !run->slow_told)
    niti_together_name_slow(text, NITI_RANK_TEXT_MAX, ranks, paces, (int)size);
  run->slow_told = run->slow_told || text[0];
  run->pace = (NitiPace){0};
  free(paces);
  return status;
}
