/* What the stand-ins for CoreFoundation and IOReport share. */
#ifndef STANDIN_H
#define STANDIN_H

#include <stdbool.h>
#include <stdint.h>

enum kind { STRING = 7, ARRAY = 19, DICTIONARY = 18, SUBSCRIPTION = 40 };

struct object {
    enum kind kind;
    long references;
    char *text;             /* of a string */
    int encoding;           /* how a string is stored */
    struct object **items;  /* of an array: the items; of a dictionary: key, value, key, value */
    long count;
    struct object *next;
};

struct object *make(enum kind kind);
struct object *make_string(const char *text, int encoding);
void append(struct object *container, struct object *item); /* takes the caller's reference */
struct object *retain(struct object *object);
struct object *look_up(const struct object *dictionary, const char *key);
void alive(const void *object, const char *who);
bool fault(const char *name);

#endif
