/* Writes an export's folder, and removes what an earlier export wrote there and this one does not. */
#include "export/folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/file.h"
#include "platform/folder.h"
#include "platform/path.h"
#include "platform/sha256.h"
#include "platform/system.h"
#include "platform/text.h"

enum { LIST_MAX = 1 << 16, FILE_MAX = 1 << 30, DIGITS = 64, PATH_AT = DIGITS + 2 };

static NitiStatus out_of_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path); }

/* OUT/NAME + ending, owned. */
static NitiStatus path_of(char **path, const char *out, const char *name, const char *ending) {
  char file[NITI_EXPORT_NAME_MAX + 16];
  (void)snprintf(file, sizeof file, "%s%s", name, ending);
  return niti_path_join(path, out, file);
}

typedef struct Looking {
  const char *out, *name; /* of the export */
  const char *path;       /* the folder that is looked at */
} Looking;

/* A first export that was killed leaves files that end in .tmp, in folders of its own, which the next takes over. */
static NitiStatus take_leftover(void *context, const char *name, bool folder) {
  const Looking *l = context;
  const size_t length = strlen(name);
  char *path = NULL;
  if (!folder && length > 4 && strcmp(name + length - 4, ".tmp") == 0) return NITI_OK;
  if (!folder)
    return niti_fail(NITI_ERROR_FILE, "%s: the folder is not empty: '%s' (expected a new one, or an earlier export of %s)",
                     l->out, name, l->name);
  NITI_TRY(niti_path_join(&path, l->path, name));
  Looking inside = {l->out, l->name, path};
  const NitiStatus status = niti_folder_walk(path, take_leftover, &inside);
  free(path);
  return status;
}

NitiStatus niti_export_check_folder(const char *out, const char *name) {
  char mark[NITI_EXPORT_NAME_MAX + 16];
  Looking looking = {out, name, out};
  bool marked;
  (void)snprintf(mark, sizeof mark, "%s.safetensors", name);
  NITI_TRY(niti_path_has_file(&marked, out, mark));
  if (marked) return NITI_OK;
  if (niti_system.access(out, F_OK) != 0) return errno == ENOENT ? NITI_OK : niti_fail_errno(out, "look into the folder");
  return niti_folder_walk(out, take_leftover, &looking);
}

/* ---- folders inside it ---- */

static NitiStatus find_link(bool *is, const char *path) {
  struct stat facts;
  const bool there = niti_system.lstat(path, &facts) == 0;
  *is = there && S_ISLNK(facts.st_mode);
  return there || errno == ENOENT || errno == ENOTDIR ? NITI_OK : niti_fail_errno(path, "find out what it is");
}

static NitiStatus make_folder(const char *path) {
  if (niti_system.mkdir(path, 0777) == 0) return NITI_OK;
  if (errno != EEXIST) return niti_fail_errno(path, "make the folder");
  bool link;
  NITI_TRY(find_link(&link, path));
  if (link) return niti_fail(NITI_ERROR_FILE, "%s: a link, which may lead elsewhere (expected a folder)", path);
  return NITI_OK;
}

static NitiStatus make_parents(char *path, size_t from) {
  NitiStatus status = NITI_OK;
  for (char *slash = strchr(path + from, '/'); slash && status == NITI_OK; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    status = make_folder(path);
    *slash = '/';
  }
  return status;
}

/* Those that are empty, as far as `from`. */
static void remove_parents(char *path, size_t from) {
  for (char *slash = strrchr(path, '/'); slash && slash >= path + from; slash = strrchr(path, '/')) {
    *slash = 0;
    if (niti_system.rmdir(path) != 0) return;
  }
}

/* ---- the list ---- */

static const char *next_line(const char *line) { return line + strcspn(line, "\n") + (strchr(line, '\n') != NULL); }

/* Whether a line of the list, from its start to `end` (NULL: its end), names the path; with a digest: and that. */
static bool is_listed(const char *list, const char *end, const char *path, size_t length, const char *digest) {
  for (const char *line = list; *line && line != end; line = next_line(line)) {
    if (strcspn(line, "\n") == PATH_AT + length && strncmp(line + PATH_AT, path, length) == 0 &&
        (!digest || strncmp(line, digest, DIGITS) == 0))
      return true;
  }
  return false;
}

/* What the list has so far, and a line for each file that it does not have. */
static char *list_of(const char *before, const NitiExportFiles *files) {
  NitiTextMemory memory;
  char digest[NITI_SHA256_TEXT];
  if (niti_text_open(&memory)) {
    fputs(before, memory.to);
    for (int i = 0; i < files->count; ++i) {
      const NitiExportFile *file = &files->files[i];
      niti_sha256_of(digest, file->text, strlen(file->text));
      if (!is_listed(before, NULL, file->path, strlen(file->path), digest)) fprintf(memory.to, "%s  %s\n", digest, file->path);
    }
  }
  return niti_text_close(&memory, NULL);
}

static NitiStatus write_list(const char *path, const char *before, const NitiExportFiles *files) {
  char *text = list_of(before, files);
  const NitiStatus status = text ? niti_file_replace(path, text, strlen(text)) : out_of_memory(path);
  free(text);
  return status;
}

/* The earlier export's list, or "". */
static NitiStatus read_list(char **text, const char *path) {
  bool there;
  NITI_TRY(niti_path_is_file(&there, path));
  if (there) return niti_file_read(text, NULL, path, LIST_MAX);
  *text = calloc(1, 1);
  return *text ? NITI_OK : out_of_memory(path);
}

/* ---- what is left of an earlier export ---- */

static bool has_file(const NitiExportFiles *files, const char *path) {
  for (int i = 0; i < files->count; ++i) {
    if (strcmp(files->files[i].path, path) == 0) return true;
  }
  return false;
}

/* Of a list that a stranger may have written: a path as exports have it, that stays in the folder and names a file in one way. */
static bool is_plain(const char *path) {
  for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
    const size_t length = strcspn(part, "/");
    if (length == 0 || (part[0] == '.' && (length == 1 || (length == 2 && part[1] == '.')))) return false;
  }
  return true;
}

/* Whether the file, or a folder between `from` and it, is a link, which may lead elsewhere. */
static NitiStatus find_link_to(bool *found, char *path, size_t from) {
  NitiStatus status = find_link(found, path);
  for (char *slash = strchr(path + from, '/'); slash && !*found && status == NITI_OK; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    status = find_link(found, path);
    *slash = '/';
  }
  return status;
}

/* The digest of a file that is there; "": none is, or none that an export can have written. */
static NitiStatus find_digest(char digest[NITI_SHA256_TEXT], const char *path) {
  char *data = NULL;
  size_t size;
  bool there;
  digest[0] = 0;
  NITI_TRY(niti_path_is_file(&there, path));
  if (!there) return NITI_OK;
  const NitiStatus status = niti_file_read(&data, &size, path, FILE_MAX);
  if (status != NITI_OK) return status == NITI_ERROR_FORMAT ? NITI_OK : status; /* too long */
  niti_sha256_of(digest, data, size);
  free(data);
  return NITI_OK;
}

/* What was changed since an earlier export wrote it, or what no export wrote, is not overwritten. */
static NitiStatus check_file(const char *path, const NitiExportFile *file, const char *list) {
  char found[NITI_SHA256_TEXT], own[NITI_SHA256_TEXT];
  bool there;
  NITI_TRY(niti_path_is_file(&there, path));
  if (!there) return NITI_OK;
  niti_sha256_of(own, file->text, strlen(file->text));
  NITI_TRY(find_digest(found, path));
  if (found[0] && (strcmp(found, own) == 0 || is_listed(list, NULL, file->path, strlen(file->path), found))) return NITI_OK;
  return niti_fail(
      NITI_ERROR_FILE,
      "%s: the export would overwrite it, but it is not as an earlier export wrote it (expected another --out, or the "
      "file elsewhere)",
      path);
}

/* Where it is as it was written. */
static NitiStatus remove_file(const char *out, const char *file, const char *list) {
  char *path, digest[NITI_SHA256_TEXT] = "";
  bool link;
  NITI_TRY(niti_path_join(&path, out, file));
  NitiStatus status = find_link_to(&link, path, strlen(out) + 1);
  if (status == NITI_OK && !link) status = find_digest(digest, path);
  if (status == NITI_OK && digest[0] && is_listed(list, NULL, file, strlen(file), digest)) {
    if (niti_system.unlink(path) != 0)
      status = niti_fail_errno(path, "remove the file of an earlier export");
    else
      remove_parents(path, strlen(out) + 1);
  }
  free(path);
  return status;
}

/* NAME.safetensors and NAME.sha256, which no list has. */
static bool is_own(const char *file, const char *name) {
  const size_t length = strlen(name);
  return strncmp(file, name, length) == 0 &&
         (strcmp(file + length, ".safetensors") == 0 || strcmp(file + length, ".sha256") == 0);
}

/* A file is read once, however often it is listed. */
static NitiStatus remove_stale(const char *out, const char *name, const char *list, const NitiExportFiles *files) {
  NitiStatus status = NITI_OK;
  for (const char *line = list; *line && status == NITI_OK; line = next_line(line)) {
    const size_t length = strcspn(line, "\n");
    if (length <= PATH_AT || is_listed(list, line, line + PATH_AT, length - PATH_AT, NULL)) continue;
    char *file = strndup(line + PATH_AT, length - PATH_AT);
    if (!file) return out_of_memory(out);
    if (is_plain(file) && !has_file(files, file) && !is_own(file, name)) status = remove_file(out, file, list);
    free(file);
  }
  return status;
}

/* ---- writing ---- */

typedef struct Staged {
  NitiFile *files[NITI_EXPORT_FILES_MAX];
  char *paths[NITI_EXPORT_FILES_MAX];
} Staged;

static NitiStatus stage(NitiFile **staged, char **path, const char *out, const NitiExportFile *file) {
  if (!file->text) return out_of_memory(out);
  NITI_TRY(niti_path_join(path, out, file->path));
  NITI_TRY(make_parents(*path, strlen(out) + 1));
  NITI_TRY(niti_file_open(staged, *path));
  return niti_file_write(*staged, file->text, strlen(file->text));
}

static NitiStatus save_checkpoint(const char *out, const char *name, const NitiCheckpoint *checkpoint) {
  char *path;
  NITI_TRY(path_of(&path, out, name, ".safetensors"));
  const NitiStatus status = niti_checkpoint_save(checkpoint, path);
  free(path);
  return status;
}

static NitiStatus write_files(Staged *s, const char *out, const char *name, const char *list, const NitiExportFiles *files,
                              const NitiCheckpoint *checkpoint) {
  char *text = NULL;
  for (int i = 0; i < files->count; ++i) NITI_TRY(stage(&s->files[i], &s->paths[i], out, &files->files[i]));
  NITI_TRY(read_list(&text, list));
  NitiStatus status = NITI_OK;
  for (int i = 0; i < files->count && status == NITI_OK; ++i) status = check_file(s->paths[i], &files->files[i], text);
  if (status == NITI_OK) status = save_checkpoint(out, name, checkpoint);
  if (status == NITI_OK) status = write_list(list, text, files); /* of both exports, until only one is there */
  for (int i = 0; i < files->count && status == NITI_OK; ++i) {
    NitiFile *file = s->files[i];
    s->files[i] = NULL;
    status = niti_file_commit(file, NULL);
  }
  if (status == NITI_OK) status = remove_stale(out, name, text, files);
  free(text);
  return status == NITI_OK ? write_list(list, "", files) : status;
}

/* Leaves no temporary file behind, nor a folder that is empty. */
static void close_staged(Staged *s, const char *out, bool failed) {
  for (int i = 0; i < NITI_EXPORT_FILES_MAX; ++i) {
    niti_file_discard(s->files[i]);
    if (s->paths[i] && failed) remove_parents(s->paths[i], strlen(out) + 1);
    free(s->paths[i]);
  }
}

NitiStatus niti_export_write_folder(const char *out, const char *name, const NitiExportFiles *files,
                                    const NitiCheckpoint *checkpoint) {
  Staged staged = {.files = {NULL}};
  char *list;
  size_t kept;
  NITI_TRY(path_of(&list, out, name, ".sha256"));
  NitiStatus status = niti_folder_make(&kept, out);
  if (status == NITI_OK) status = write_files(&staged, out, name, list, files, checkpoint);
  close_staged(&staged, out, status != NITI_OK);
  if (status != NITI_OK) niti_folder_unmake(out, kept);
  free(list);
  return status;
}
