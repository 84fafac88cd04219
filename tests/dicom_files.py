"A small writer of DICOM files for the tests of the room data"
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def write_dicom(path, pixels, syntax=ExplicitVRLittleEndian, compress=None, **tags):
    "Write `pixels` (uint8, uint16 or int16) as a file of that transfer syntax with those tags; a tag of None is left out"
    ds, pixels, bits = Dataset(), np.asarray(pixels), np.asarray(pixels).dtype.itemsize*8
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    facts = dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.1', SOPInstanceUID=generate_uid(), StudyInstanceUID=generate_uid(),
                 SeriesInstanceUID=generate_uid(), PatientID='MRN0815', PatientName='Roe^Jane', Modality='CR', BodyPartExamined='WRIST',
                 ViewPosition='PA', Rows=pixels.shape[0], Columns=pixels.shape[1], SamplesPerPixel=1,
                 PhotometricInterpretation='MONOCHROME2', BitsAllocated=bits, BitsStored=bits, HighBit=bits-1,
                 PixelRepresentation=int(pixels.dtype.kind == 'i')) | tags
    for k,v in facts.items():
        if v is not None: ds.add_new(tag_for_keyword(k), dictionary_VR(tag_for_keyword(k)).split()[0], v)
    order = '>' if syntax == pydicom.uid.ExplicitVRBigEndian else '<'
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds['PixelData'].VR = 'OB' if bits == 8 else 'OW'
    if compress: ds.compress(compress, generate_instance_uid=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True, little_endian=order == '<', implicit_vr=syntax == pydicom.uid.ImplicitVRLittleEndian)
    return Path(path)
