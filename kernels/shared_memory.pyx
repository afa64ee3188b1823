"""The table of regions, and the calls that change it; those are the control plane's and take the GIL."""

import os
import re
import stat
import threading

from cython cimport final, no_gc_clear
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from kernels.cuda_runtime cimport IPC_HANDLE_BYTES, CudaRuntime, copy_memory, unmap_memory
from kernels.sync cimport (
    int_add, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from kernels.wire cimport bytes_view

from kernels import status
from kernels.cuda_runtime import CudaError, open_cuda

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int descriptor, void* target, size_t size, int64_t offset) noexcept
    ssize_t pwrite(int descriptor, const void* source, size_t size, int64_t offset) noexcept
    int close(int descriptor) noexcept

cdef extern from "<sys/stat.h>" nogil:
    cdef struct file_status "stat":
        int64_t st_size
    int fstat(int descriptor, file_status* found) noexcept

cdef enum:
    MAX_REGIONS = 1024       # each is a descriptor of the process, or a mapping
    MAX_NAME_BYTES = 255
    NO_DESCRIPTOR = -1

# What stands for the device of an object that is a GPU's memory, with the number of the GPU: no file's is as large.
cdef uint64_t GPU_DEVICES = 1ULL << 63

FOLDER = "/dev/shm"
# A name of one object: what shm_open takes, less the slashes that it cuts off.
KEY = re.compile(r"[^/\0]{1,255}")
# Triton's own objects, which it refuses too, and the files of POSIX semaphores, which other processes sleep on.
RESERVED_PREFIXES = ("triton_python_backend_shm_region_", "sem.")


class SharedMemoryError(Exception):
    """A region cannot be registered or is not there; ``code`` is one of kernels.status."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


@final
@no_gc_clear  # the regions that are left are unmapped by the runtime
cdef class SharedMemory:
    """The regions that requests may name; every method may be called from any thread.

    An unregistered region is closed once the last request that holds it has been given back.
    """

    def __cinit__(self):
        self._lock = threading.Lock()
        self._keys = {}
        self.table = <region_table*> calloc(1, sizeof(region_table))
        if self.table == NULL:
            raise MemoryError
        pthread_mutex_init(&self.table.lock, NULL)

    def __dealloc__(self):
        if self.table == NULL:
            return
        clear_table(self.table)
        pthread_mutex_destroy(&self.table.lock)
        free(self.table)

    def register(self, str name not None, str key not None, offset, byte_size):
        """Make `byte_size` bytes of the memory object `key`, from `offset` on, known as `name`.

        Raises
        ------
        SharedMemoryError
            The name is empty, too long or taken, the key names no object that this process may read and write, the
            object is smaller than the region, or there are too many regions.
        """
        encoded = encode_name(name)
        if not 0 <= offset < 2**63 or not 0 < byte_size < 2**63 or offset + byte_size >= 2**63:
            raise refuse(f"byte_size and offset: expected at least 1 and 0, and a sum below 2^63, given {byte_size} "
                         f"and {offset}")
        with self._lock:
            self._check_free(name)
            self.add(encoded, open_object(key, offset + byte_size), offset, byte_size)
            self._keys[name] = key

    def register_cuda(self, str name not None, bytes handle not None, gpu, byte_size):
        """Make the first `byte_size` bytes of a GPU's memory, of which another process gave the handle, known as `name`.

        Raises
        ------
        SharedMemoryError
            The name is empty, too long or taken, CUDA or the GPU is not there, the handle is none of its memory, the
            memory is smaller than the region, or there are too many regions.
        """
        encoded = encode_name(name)
        if len(handle) != IPC_HANDLE_BYTES:
            raise refuse(f"raw_handle: expected the {IPC_HANDLE_BYTES} bytes of a CUDA IPC handle, given {len(handle)}")
        if not 0 < byte_size < 2**63:
            raise refuse(f"byte_size: expected at least 1 and less than 2^63, given {byte_size}")
        with self._lock:
            self._check_free(name)
            try:
                self._cuda = self._cuda or open_cuda()
                if not 0 <= gpu < self._cuda.count_gpus():
                    raise CudaError(f"device_id: there is no GPU {gpu}")
                self.add_cuda(encoded, handle, gpu, byte_size)
            except CudaError as error:
                raise refuse(f"CUDA shared memory region {name!r} cannot be registered: {error}") from None
            self._keys[name] = None

    def use_cuda(self, CudaRuntime cuda not None):
        """Reach memory of GPUs by a runtime other than the process's; before any is registered."""
        self._cuda = cuda

    def _check_free(self, name):
        """Raise SharedMemoryError unless the name can be registered; under the lock."""
        if name in self._keys:
            raise SharedMemoryError(status.ALREADY_EXISTS, f"shared memory region {name!r} is registered already")
        if len(self._keys) >= MAX_REGIONS:
            raise SharedMemoryError(status.EXHAUSTED, f"{MAX_REGIONS} shared memory regions are registered; no more "
                                    "can be")

    cdef int add(self, bytes name, int descriptor, int64_t offset, int64_t size) except -1:
        """Put a region into the table, which owns the descriptor from then on; closed on an error."""
        cdef region* made = create_region(name, len(name), descriptor, offset, size)
        if made == NULL:
            close(descriptor)
            raise MemoryError
        found = os.fstat(descriptor)
        made.device, made.inode = found.st_dev, found.st_ino
        insert_region(self.table, made)
        return 0

    cdef int add_cuda(self, bytes name, bytes handle, int gpu, int64_t size) except -1:
        """Map a GPU's memory and put it into the table, which unmaps it."""
        cdef uint8_t* base = self._cuda.map_memory(handle, gpu, size)
        cdef region* made = create_region(name, len(name), NO_DESCRIPTOR, 0, size)
        if made == NULL:
            unmap_memory(&self._cuda.table, gpu, base)
            raise MemoryError
        made.cuda, made.gpu, made.base = &self._cuda.table, gpu, base
        made.device, made.inode = GPU_DEVICES | <uint64_t> gpu, <uint64_t> base
        insert_region(self.table, made)
        return 0

    def unregister(self, str name not None):
        """Forget a region of system shared memory; one that is not there is no error."""
        self._forget(name, False)

    def unregister_cuda(self, str name not None):
        """Forget a region of a GPU's memory; one that is not there is no error."""
        self._forget(name, True)

    def unregister_all(self):
        """Forget every region of system shared memory."""
        for name in self.regions():
            self.unregister(name)

    def unregister_all_cuda(self):
        """Forget every region of a GPU's memory."""
        for name in self.cuda_regions():
            self.unregister_cuda(name)

    def _forget(self, str name, bint is_cuda):
        cdef bytes encoded = name.encode()
        cdef region* taken = NULL
        with self._lock:
            if name in self._keys and (self._keys[name] is None) == is_cuda:
                del self._keys[name]
                taken = take_region(self.table, bytes_view(<const uint8_t*> <const char*> encoded, len(encoded)))
        if taken != NULL:
            drop_region(taken)

    def regions(self):
        """Return {name: (key, offset, byte_size)} of what is registered of system shared memory."""
        with self._lock:
            return {name: self.describe(name) for name, key in self._keys.items() if key is not None}

    def cuda_regions(self):
        """Return {name: (number of the GPU, byte_size)} of what is registered of GPUs' memory."""
        with self._lock:
            return {name: self.describe(name) for name, key in self._keys.items() if key is None}

    cdef tuple describe(self, str name):
        cdef bytes encoded = name.encode()
        cdef region* held = hold_region(self.table, bytes_view(<const uint8_t*> <const char*> encoded, len(encoded)))
        key = self._keys[name]
        described = (held.gpu, held.size) if key is None else (key, held.offset, held.size)
        drop_region(held)
        return described


def encode_name(name):
    """The bytes of a name that a region can have."""
    encoded = name.encode()
    if not 0 < len(encoded) <= MAX_NAME_BYTES:
        raise refuse(f"name: expected 1 to {MAX_NAME_BYTES} bytes, given {len(encoded)}")
    return encoded


def refuse(text):
    """The error of a request that is wrong in itself."""
    return SharedMemoryError(status.INVALID, text)


def open_object(key, end):
    """Open the memory object of a key and return its descriptor; SharedMemoryError unless it has `end` bytes."""
    name = key.lstrip("/")
    if not KEY.fullmatch(name) or name in (".", ".."):
        raise refuse(f"key: expected the name of one shared memory object, given {key!r}")
    if name.startswith(RESERVED_PREFIXES):
        raise refuse(f"key: {key!r} begins with a reserved prefix; {', '.join(RESERVED_PREFIXES)} are")
    try:
        # As shm_open does; and a pipe of that name must not keep us waiting.
        descriptor = os.open(f"{FOLDER}/{name}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name cannot be encoded"
        raise refuse(f"key: shared memory object {key!r} cannot be opened: {reason}") from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and end <= found.st_size:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise refuse(f"key: {key!r} is no shared memory object")
    raise refuse(f"byte_size: the region ends at byte {end}; the shared memory object {key!r} has {found.st_size}")


# ---- the table


cdef uint64_t hash_name(const uint8_t* name, size_t size) noexcept nogil:
    """FNV-1a."""
    cdef uint64_t value = 0xCBF29CE484222325ULL
    cdef size_t place
    for place in range(size):
        value = (value ^ name[place]) * 0x100000001B3ULL
    return value


cdef region** find_link(region_table* table, bytes_view name) noexcept nogil:
    """The link that leads to a region, or to NULL where it would be; under the lock."""
    cdef region** link = &table.buckets[hash_name(name.data, name.size) & (BUCKETS - 1)]
    while link[0] != NULL and not (link[0].name_size == name.size
                                   and memcmp(link[0].name, name.data, name.size) == 0):
        link = &link[0].next
    return link


cdef region* create_region(const char* name, size_t name_size, int descriptor, int64_t offset,
                           int64_t size) noexcept nogil:
    """A region with one reference, the table's; NULL without memory."""
    cdef region* made = <region*> calloc(1, sizeof(region))
    if made == NULL:
        return NULL
    made.name = <char*> malloc(name_size + 1)
    if made.name == NULL:
        free(made)
        return NULL
    memcpy(made.name, name, name_size)
    made.name[name_size] = 0
    made.name_size = name_size
    made.descriptor = descriptor
    made.offset = offset
    made.size = size
    made.references = 1
    return made


cdef void insert_region(region_table* table, region* made) noexcept nogil:
    pthread_mutex_lock(&table.lock)
    find_link(table, bytes_view(<const uint8_t*> made.name, made.name_size))[0] = made
    pthread_mutex_unlock(&table.lock)


cdef region* take_region(region_table* table, bytes_view name) noexcept nogil:
    """Unlink a region that is there; the table's reference becomes the caller's."""
    cdef region** link
    cdef region* taken
    pthread_mutex_lock(&table.lock)
    link = find_link(table, name)
    taken = link[0]
    link[0] = taken.next
    pthread_mutex_unlock(&table.lock)
    return taken


cdef void clear_table(region_table* table) noexcept nogil:
    cdef region* taken
    cdef int bucket
    for bucket in range(BUCKETS):
        while table.buckets[bucket] != NULL:
            taken = table.buckets[bucket]
            table.buckets[bucket] = taken.next
            drop_region(taken)


cdef region* hold_region(region_table* table, bytes_view name) noexcept nogil:
    """Return a region, which stays open until it is dropped, or NULL when none has the name."""
    cdef region* found
    pthread_mutex_lock(&table.lock)
    found = find_link(table, name)[0]
    if found != NULL:
        int_add(&found.references, 1)
    pthread_mutex_unlock(&table.lock)
    return found


cdef void drop_region(region* held) noexcept nogil:
    """Give a reference back; the last one closes the region."""
    if int_add(&held.references, -1) > 0:
        return
    if is_on_gpu(held):
        unmap_memory(held.cuda, held.gpu, held.base)
    else:
        close(held.descriptor)
    free(held.name)
    free(held)


# ---- its bytes


cdef bint is_on_gpu(const region* home) noexcept nogil:
    """Tell whether a region is a GPU's memory."""
    return home.base != NULL


cdef int read_region(const region* source, int64_t offset, uint8_t* target, size_t size) noexcept nogil:
    """Copy bytes out of a region, which has them by its size. 0, or -1: its object has become shorter, or CUDA fails."""
    cdef ssize_t part
    cdef size_t done = 0
    if is_on_gpu(source):
        return 0 if copy_memory(source.cuda, source.gpu, target, source.base + offset, size) == 0 else -1
    while done < size:
        part = pread(source.descriptor, target + done, size - done, source.offset + offset + <int64_t> done)
        if part < 0 and errno == EINTR:
            continue
        if part <= 0:
            return -1
        done += <size_t> part
    return 0


cdef int write_region(const region* target, int64_t offset, const uint8_t* source, size_t size) noexcept nogil:
    """Copy bytes into a region, which has room for them by its size. 0, or -1 as of read_region.

    An object that was cut short stays as short as its owner made it; memory that the system has not got is the same.
    """
    cdef file_status found
    cdef ssize_t part
    cdef size_t done = 0
    if is_on_gpu(target):
        return 0 if copy_memory(target.cuda, target.gpu, target.base + offset, source, size) == 0 else -1
    if fstat(target.descriptor, &found) != 0 or found.st_size < target.offset + offset + <int64_t> size:
        return -1
    while done < size:
        part = pwrite(target.descriptor, source + done, size - done, target.offset + offset + <int64_t> done)
        if part < 0 and errno == EINTR:
            continue
        if part <= 0:
            return -1
        done += <size_t> part
    return 0
