/* A stand-in for the part of CoreFoundation that is used, which counts what is retained, released, and used when dead.
 * Nothing is ever freed before the next standin_reset, so that a use of a dead object is seen and does no harm. */
#include "standin.h"

#include <stdlib.h>
#include <string.h>

static struct object *everything;
static long retained, released, misused;
static char faults[32][64];
static int fault_count;

void standin_reset(void) {
    while (everything != NULL) {
        struct object *object = everything;
        everything = object->next;
        free(object->text);
        free(object->items);
        free(object);
    }
    retained = released = misused = fault_count = 0;
}

void standin_fault(const char *name) {
    strncpy(faults[fault_count++], name, 63);
}

void standin_heal(void) {
    fault_count = 0;
}

bool fault(const char *name) {
    for (int index = 0; index < fault_count; index++)
        if (strcmp(faults[index], name) == 0)
            return true;
    return false;
}

long standin_retained(void) { return retained; }
long standin_released(void) { return released; }
long standin_misused(void) { return misused; }

long standin_living(void) {
    long count = 0;
    for (struct object *object = everything; object != NULL; object = object->next)
        count += object->references > 0;
    return count;
}

void alive(const void *pointer, const char *who) {
    (void)who;
    for (struct object *object = everything; object != NULL; object = object->next)
        if (object == pointer && object->references > 0)
            return;
    misused++;
}

struct object *make(enum kind kind) {
    struct object *object = calloc(1, sizeof *object);
    object->kind = kind;
    object->references = 1;
    object->next = everything;
    everything = object;
    retained++;
    return object;
}

struct object *make_string(const char *text, int encoding) {
    struct object *object = make(STRING);
    object->text = strdup(text);
    object->encoding = encoding;
    return object;
}

void append(struct object *container, struct object *item) {
    container->items = realloc(container->items, (container->count + 1) * sizeof *container->items);
    container->items[container->count++] = item;
}

struct object *retain(struct object *object) {
    alive(object, "retain");
    object->references++;
    retained++;
    return object;
}

struct object *look_up(const struct object *dictionary, const char *key) {
    for (long index = 0; index + 1 < dictionary->count; index += 2)
        if (strcmp(dictionary->items[index]->text, key) == 0)
            return dictionary->items[index + 1];
    return NULL;
}

void CFRelease(struct object *object) {
    if (object == NULL) {
        misused++; /* the real one crashes */
        return;
    }
    alive(object, "CFRelease");
    released++;
    if (--object->references == 0)
        for (long index = 0; index < object->count; index++)
            if (object->items[index] != NULL)
                CFRelease(object->items[index]);
}

unsigned long CFGetTypeID(const struct object *object) {
    alive(object, "CFGetTypeID");
    return object->kind;
}

unsigned long CFArrayGetTypeID(void) { return ARRAY; }
unsigned long CFDictionaryGetTypeID(void) { return DICTIONARY; }
unsigned long CFStringGetTypeID(void) { return STRING; }

struct object *CFStringCreateWithCString(const void *allocator, const char *text, uint32_t encoding) {
    (void)allocator;
    if (fault("no string") || encoding != 0x08000100)
        return NULL;
    return make_string(text, 0);
}

/* Strings are stored as UTF-8 (0), as Latin-1 (1), as what cannot be written as UTF-8 (2), or as bytes that are none (3). */
unsigned char CFStringGetCString(const struct object *string, char *buffer, long size, uint32_t encoding) {
    alive(string, "CFStringGetCString");
    if (string->kind != STRING || encoding != 0x08000100 || string->encoding == 2) {
        misused += string->kind != STRING;
        return 0;
    }
    long length = 0;
    for (const unsigned char *c = (const unsigned char *)string->text; *c != 0; c++) {
        bool is_wide = string->encoding == 1 && *c >= 0x80;
        if (length + is_wide + 1 >= size)
            return 0;
        if (is_wide) {
            buffer[length++] = (char)(0xC0 | *c >> 6);
            buffer[length++] = (char)(0x80 | (*c & 0x3F));
        } else {
            buffer[length++] = (char)*c;
        }
    }
    buffer[length] = 0;
    return 1;
}

long CFDictionaryGetCount(const struct object *dictionary) {
    alive(dictionary, "CFDictionaryGetCount");
    misused += dictionary->kind != DICTIONARY;
    return dictionary->count / 2;
}

struct object *CFDictionaryGetValue(const struct object *dictionary, const struct object *key) {
    alive(dictionary, "CFDictionaryGetValue");
    alive(key, "CFDictionaryGetValue");
    misused += dictionary->kind != DICTIONARY;
    return look_up(dictionary, key->text);
}

struct object *CFDictionaryCreateMutableCopy(const void *allocator, long capacity, const struct object *dictionary) {
    (void)allocator;
    alive(dictionary, "CFDictionaryCreateMutableCopy");
    misused += capacity != 0 && capacity < dictionary->count / 2;
    if (fault("no copy"))
        return NULL;
    struct object *copy = make(DICTIONARY);
    for (long index = 0; index < dictionary->count; index++)
        append(copy, retain(dictionary->items[index]));
    return copy;
}

long CFArrayGetCount(const struct object *array) {
    alive(array, "CFArrayGetCount");
    misused += array->kind != ARRAY;
    return array->count;
}

struct object *CFArrayGetValueAtIndex(const struct object *array, long index) {
    alive(array, "CFArrayGetValueAtIndex");
    if (array->kind != ARRAY || index < 0 || index >= array->count) {
        misused++;
        return NULL;
    }
    return array->items[index];
}
