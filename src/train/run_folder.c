/* Makes, locks and describes the folder of a run. */
#define _GNU_SOURCE /* asprintf */
#include "train/run_folder.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/folder.h"
#include "platform/json.h"
#include "platform/lock.h"
#include "platform/path.h"
#include "platform/system.h"
#include "platform/text.h"

struct NitiRunFolder {
  char *path;
  NitiLock *lock;
  bool made; /* the folder was not there before */
};

static NitiStatus find_checkpoint(bool *has, const char *path) {
  NITI_TRY(niti_path_has_file(has, path, "last.safetensors"));
  return *has ? NITI_OK : niti_path_has_file(has, path, "previous.safetensors");
}

static bool is_lock(const char *name) {
  static const char owner[] = ".lock.owner"; /* and a process's own, with more behind it */
  return strcmp(name, ".lock") == 0 || strncmp(name, owner, sizeof owner - 1) == 0;
}

/* Whose the lock is; what a process wrote that has it is no reason to look for another folder, but to wait. */
typedef struct Tenancy {
  const char *path;
  bool locked; /* by this process */
} Tenancy;

static NitiStatus refuse_entry(void *context, const char *name, bool folder) {
  const Tenancy *tenancy = context;
  bool run;
  if (is_lock(name) && !(folder && strcmp(name, ".lock") == 0)) return NITI_OK;
  if (!tenancy->locked) NITI_TRY(niti_lock_probe(tenancy->path));
  NITI_TRY(find_checkpoint(&run, tenancy->path));
  return niti_fail(NITI_ERROR_FILE, "%s: the folder holds '%s' already (expected a new or empty folder%s)", tenancy->path, name,
                   run ? "; `niti train --resume` with it continues the run there" : "; it holds no run to resume");
}

/* But for a lock, of a process that has begun there or was killed as it did: who gets it decides. */
static NitiStatus check_empty(const char *path, bool locked) {
  Tenancy tenancy = {path, locked};
  return niti_folder_walk(path, refuse_entry, &tenancy);
}

static NitiStatus lock(NitiRunFolder **out, const char *path) {
  NitiRunFolder *folder = calloc(1, sizeof *folder);
  if (folder) folder->path = strdup(path);
  const NitiStatus status =
      folder && folder->path ? niti_lock_open(&folder->lock, path) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  if (status != NITI_OK) {
    niti_run_folder_close(folder);
    return status;
  }
  *out = folder;
  return NITI_OK;
}

NitiStatus niti_run_folder_create(NitiRunFolder **out, const char *path) {
  *out = NULL;
  size_t kept;
  NITI_TRY(niti_folder_make(&kept, path));
  NITI_TRY(check_empty(path, false));
  NITI_TRY(lock(out, path));
  (*out)->made = kept < strlen(path);
  const NitiStatus status = check_empty(path, true); /* another process may have had the lock since, and trained */
  if (status == NITI_OK) return NITI_OK;
  niti_run_folder_close(*out);
  *out = NULL;
  return status;
}

/* The deepest existing folder above path; "." or "/" if there is none, even where neither can be reached. */
static NitiStatus existing_part(char **out, const char *path) {
  *out = strdup(path);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  while (strcmp(*out, ".") != 0 && strcmp(*out, "/") != 0 && niti_system.access(*out, F_OK) != 0) {
    char *slash = strrchr(*out, '/');
    if (!slash) {
      (void)snprintf(*out, strlen(path) + 1, "."); /* path is not empty */
    } else if (slash == *out) {
      slash[1] = 0;
    } else {
      *slash = 0;
    }
  }
  return NITI_OK;
}

/* part: the deepest existing folder above path. */
static NitiStatus check_part(const char *path, const char *part) {
  bool folder;
  if (niti_system.access(part, F_OK) != 0) return niti_fail_errno(part, "look into the folder");
  NITI_TRY(niti_path_is_dir(&folder, part));
  if (!folder) return niti_fail(NITI_ERROR_FILE, "%s: cannot make the folder: %s is not a folder", path, part);
  return niti_system.access(part, W_OK | X_OK) != 0 ? niti_fail_errno(part, "write into the folder") : NITI_OK;
}

NitiStatus niti_run_folder_check(const char *path) {
  char *part;
  bool there;
  if (!*path) return niti_fail(NITI_ERROR_ARGUMENT, "run: the folder's name is empty");
  NITI_TRY(niti_path_is_dir(&there, path));
  if (there) NITI_TRY(check_empty(path, false));
  NITI_TRY(existing_part(&part, path));
  const NitiStatus status = check_part(path, part);
  free(part);
  return status;
}

static NitiStatus remove_entry(void *context, const char *name, bool folder) {
  char *path;
  (void)folder;
  NITI_TRY(niti_path_join(&path, context, name));
  (void)niti_system.unlink(path);
  free(path);
  return NITI_OK;
}

/* Whether a run writes a file of that name before its first step, or its temporary one. */
static bool is_first(const char *name) {
  static const char *const names[] = {".lock",       "recipe.yaml",   "model.yaml",      "environment.json",
                                      "metrics.csv", "metrics.jsonl", "last.safetensors"};
  static const char events[] = "events.out.tfevents.";
  if (strncmp(name, events, sizeof events - 1) == 0) return true;
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const size_t length = strlen(names[i]);
    if (strncmp(name, names[i], length) == 0 && (!name[length] || strcmp(name + length, ".tmp") == 0)) return true;
  }
  return false;
}

static NitiStatus remove_first(void *context, const char *name, bool folder) {
  return is_first(name) ? remove_entry(context, name, folder) : NITI_OK;
}

void niti_run_folder_clear(NitiRunFolder *folder) {
  char why[1024];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  const NitiStatus status = niti_folder_walk(folder->path, remove_first, folder->path);
  if (status != NITI_OK) (void)niti_fail(status, "%s", why); /* the failure before matters more */
  niti_lock_close(folder->lock);                             /* which may be a folder in it */
  folder->lock = NULL;
  if (folder->made) (void)niti_system.rmdir(folder->path);
}

static bool ends_with(const char *name, const char *ending) {
  const size_t length = strlen(name), part = strlen(ending);
  return length >= part && strcmp(name + length - part, ending) == 0;
}

/* What a process that was killed within a save left. */
static const char left_over[] = ".safetensors.tmp";

static NitiStatus remove_left_over(void *context, const char *name, bool folder) {
  return ends_with(name, left_over) ? remove_entry(context, name, folder) : NITI_OK;
}

typedef struct Survey {
  const char *folder, *why;
  char *obstacle;
} Survey;

/* A file takes any other's place, or a link's, but no folder's; a temporary file is opened and must be one. */
static NitiStatus find_obstacle(void *context, const char *name, bool folder) {
  Survey *survey = context;
  struct stat info;
  char *path;
  (void)folder;
  if (survey->obstacle) return NITI_OK;
  NITI_TRY(niti_path_join(&path, survey->folder, name));
  const bool opened = ends_with(name, ".tmp") && !ends_with(name, left_over);
  if (strstr(survey->why, path) && niti_system.lstat(path, &info) == 0 &&
      (S_ISDIR(info.st_mode) || (opened && !S_ISREG(info.st_mode))))
    survey->obstacle = path;
  else
    free(path);
  return NITI_OK;
}

NitiStatus niti_run_folder_survey(bool *resumable, char **obstacle, const char *path, const char *why) {
  Survey survey = {path, why, NULL};
  *obstacle = NULL;
  NITI_TRY(find_checkpoint(resumable, path));
  if (!*resumable) return NITI_OK;
  const NitiStatus status = niti_folder_walk(path, find_obstacle, &survey);
  *obstacle = survey.obstacle;
  return status;
}

NitiStatus niti_run_folder_open(NitiRunFolder **out, const char *path) {
  *out = NULL;
  if (!*path) return niti_fail(NITI_ERROR_ARGUMENT, "folder: the name is empty (expected a folder)");
  bool run;
  NITI_TRY(find_checkpoint(&run, path));
  if (!run) return niti_fail(NITI_ERROR_FILE, "%s: no run to resume here (expected %s/last.safetensors)", path, path);
  NITI_TRY(lock(out, path));
  (void)niti_folder_walk(path, remove_left_over, (*out)->path);
  return NITI_OK;
}

void niti_run_folder_close(NitiRunFolder *folder) {
  if (!folder) return;
  niti_lock_close(folder->lock);
  free(folder->path);
  free(folder);
}

NitiStatus niti_run_folder_hold(const NitiRunFolder *folder) { return niti_lock_check(folder->lock); }

const char *niti_run_folder_path(const NitiRunFolder *folder) { return folder->path; }

const char *niti_run_folder_owner_file(const NitiRunFolder *folder) { return niti_lock_owner_file(folder->lock); }

static NitiStatus write_text(const NitiRunFolder *folder, const char *name, const char *text) {
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, folder->path, name));
  const NitiStatus status = niti_file_replace(path, text, strlen(text));
  free(path);
  return status;
}

NitiStatus niti_run_folder_put_recipe(const NitiRunFolder *folder, const NitiRecipe *recipe) {
  return write_text(folder, "recipe.yaml", recipe->text);
}

static json_t *describe_data(const NitiDataset *dataset, const char *path, const char hash[NITI_SPLITS][65]) {
  static const char *const images[] = {"train_images", "test_images", "validation_images"};
  static const char *const sums[] = {"train_sha256", "test_sha256", "validation_sha256"};
  json_t *object = json_pack("{s:s, s:s}", "kind", niti_dataset_kind(dataset), "path", path);
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const int64_t count = niti_dataset_count(dataset, (NitiSplit)split);
    if (count == 0) continue;
    const bool set = json_object_set_new(object, images[split], json_integer(count)) == 0 &&
                     json_object_set_new(object, sums[split], json_string(hash[split])) == 0;
    if (set) continue;
    json_decref(object);
    return NULL;
  }
  return object;
}

NitiStatus niti_run_folder_describe(const NitiRunFolder *folder, const NitiRecipe *recipe, const NitiBackend *backend,
                                    const NitiDataset *dataset, const char *data_path, const char hash[NITI_SPLITS][65],
                                    NitiSplit chosen_on) {
  NITI_TRY(niti_run_folder_put_recipe(folder, recipe));
  NITI_TRY(write_text(folder, "model.yaml", recipe->model->text));
  char seed[24]; /* a text if too large for a JSON integer here */
  (void)snprintf(seed, sizeof seed, "%" PRIu64, recipe->seed);
  char *path = niti_text_escaped(data_path);
  if (!path) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for environment.json", folder->path);
  json_t *object =
      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:s, s:o}", "niti", niti_version(), "arithmetic", NITI_ARITHMETIC,
                "recipe", recipe->name, "backend", backend->ops->name, "device", backend->ops->describe(backend), "hardware",
                backend->ops->hardware(backend), "threads", backend->ops->threads(backend), "seed",
                recipe->seed > INT64_MAX ? json_string(seed) : json_integer((json_int_t)recipe->seed), "best_chosen_on",
                niti_split_name(chosen_on), "data", describe_data(dataset, path, hash));
  char *text = object ? niti_json_text(object, JSON_INDENT(2)) : NULL;
  json_decref(object);
  free(path);
  if (!text) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for environment.json", folder->path);
  char *line = NULL;
  const bool whole = asprintf(&line, "%s\n", text) >= 0;
  const NitiStatus status = whole ? write_text(folder, "environment.json", line)
                                  : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for environment.json", folder->path);
  if (whole) free(line);
  free(text);
  return status;
}
