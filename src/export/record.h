/* Writes down what operations of a program read and make: shared by the vectors of training steps and the directed cases. */
#ifndef NITI_EXPORT_RECORD_H
#define NITI_EXPORT_RECORD_H

#include <jansson.h>

#include "backend/backend.h"
#include "export/vectors.h"

enum { NITI_STEM_MAX = 160 };

typedef struct NitiRecord {
  const NitiVectorOptions *options;
  unsigned formats;
  json_t *operations; /* owned: the index's list */
  int64_t count;      /* operations written */
  size_t kept;        /* of the folder's path, what was there before */
  bool made;          /* the folder is there, and all in it is the record's */
  /* The program under way. */
  NitiExecutable *executable; /* a plain one, at its whole batch; borrowed */
  const NitiProgram *program;
  const char *prefix;           /* of files' names, before the step's number */
  const char *directed;         /* NULL, or what the entries' `case` says */
  const char *only;             /* NULL, or words as --operations has them: which opcodes count besides */
  char (*files)[NITI_STEM_MAX]; /* [tensors] the stem of the file that holds its content; "": none does; owned */
  uint8_t *pixels;              /* of the batch, owned, as are the next two */
  NitiSample *samples;
  int32_t *labels;
  NitiBindings bindings; /* of the step: its seed, step and scalars; the images are the above */
  json_t *current;       /* the operation's entry under way */
} NitiRecord;

/* Checks the options' formats, and begins the list. */
NitiStatus niti_record_open(NitiRecord *out, const NitiVectorOptions *options);
void niti_record_close(NitiRecord *r);
/* Takes a program: input is the shape of its images. */
NitiStatus niti_record_begin(NitiRecord *r, NitiExecutable *executable, NitiShape input);
/* Fails, naming it, with a word of --operations that none of `count` names contains. */
NitiStatus niti_record_check_words(const NitiVectorOptions *options, const char *const *names, size_t count, const char *whose);
/* Whether --operations wants the operation of this name. */
bool niti_record_wants(const NitiRecord *r, const char *name);
/* Makes the folder, which must be missing or empty, and those above it that are missing. */
NitiStatus niti_record_make_folder(NitiRecord *r);
/* Removes what was written, and the folders that were made for it: after a failure. */
void niti_record_discard(const NitiRecord *r);
/* Runs operation i of the program, and writes it if it is wanted. */
NitiStatus niti_record_operation(NitiRecord *r, int32_t i);
/* Appends an entry, which the list owns from then on. */
NitiStatus niti_record_add(NitiRecord *r, json_t *entry);
/* {kind, niti, arithmetic, operations} */
json_t *niti_record_index(const NitiRecord *r, const char *kind);
uint64_t niti_record_largest(const int64_t *sums, size_t count);

#endif
